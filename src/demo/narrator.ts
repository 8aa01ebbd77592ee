import type { EventName, FieldsOf } from '../base/event-table.ts';
import type { Events } from '../base/events.ts';
import { inOneLine } from '../base/safe-text.ts';

type Sentences = { readonly [Name in EventName]?: (fields: FieldsOf<Name>) => string };

const short = (id: unknown): string => String(id).replace(/^urn:dev:/, '');

/** Names of resources of LwM2M, by object and resource. */
const resources: Readonly<Record<string, string>> = {
  '1 8': 'Registration Update Trigger',
  '3 4': 'Reboot',
  '5 1': 'Package URI',
  '5 2': 'Update',
  '3311 5850': 'On/Off of the lamp',
};

/** The path of a resource of LwM2M, with its name. */
function named(path: unknown): string {
  const [, object, , resource] = String(path).split('/');
  const name = resources[`${object} ${resource}`];
  return name === undefined ? String(path) : `${path} (${name})`;
}

const alertNames: Readonly<Record<string, string>> = {
  'device-attach': 'Device Attach Alert',
  'device-detach': 'Device Detach Alert',
  'device-presence': 'Device Presence Alert',
  'command-fanout': 'Command Fanout Alert',
  'image-operation': 'Image Operation Alert',
};

/** What an alert is about. The result of an order carries the name of the order in place of a device. */
const subjectOf = (alert: string, device: string): string =>
  alert === 'command-fanout'
    ? `fan-out '${device}'`
    : alert === 'image-operation'
      ? `image '${device}'`
      : short(device);

/** One sentence for each event worth telling, for a reader who has not read the specifications. */
const sentences: Readonly<Record<keyof typeof columns, Sentences>> = {
  device: {
    'device.discovered': ({ device, gateway, resources }) =>
      `${short(device)} found a gateway at ${gateway}, which offers ${resources}`,
    'device.bootstrapped': ({ device, server }) =>
      `${short(device)} checked the MAC of the bootstrap and now has an account for ${server}`,
    'device.account-taken': ({ device, gateway }) =>
      `${short(device)} accepted an account for the gateway at ${gateway}`,
    'device.session-started': ({ device, server, session, tunnelled }) =>
      `${short(device)} opens DM session ${session} with ${server}${tunnelled ? ', through the tunnel' : ''}`,
    'device.command': ({ device, server, command, uri, status }) =>
      `${short(device)} executed ${command}${uri === undefined ? '' : ` ${uri}`} for ${server}: status ${status}`,
    'device.association-opened': ({ device, gateway }) =>
      `${short(device)} and ${gateway} have proved their key to each other; from now on all is encrypted`,
    'device.attach-done': ({ device, gateway }) => `${short(device)} is attached to ${gateway}`,
    'device.written': ({ device, path }) => `${short(device)} accepted a value for ${named(path)}`,
    'device.executed': ({ device, path }) => `${short(device)} executed ${named(path)}`,
    'device.notified': ({ device, server, session }) =>
      `${short(device)} received Package #0, checked its digest, and will open session ${session} with ${server}`,
    'device.location-changed': ({ device, from }) =>
      `${short(device)} is no longer in the network of ${from} and will report this`,
    'device.downloaded': ({ device, bytes }) =>
      `${short(device)} downloaded the image block by block from its gateway: ${bytes} bytes`,
    'device.updated': ({ device, version }) => `${short(device)} now runs version ${version}`,
    'device.attach-failed': ({ device, reason, retryInSeconds }) =>
      `${short(device)} could not attach: ${reason}${retryInSeconds === undefined ? '' : `; next attempt in ${retryInSeconds} s`}`,
    'device.notification-refused': ({ device }) =>
      `${short(device)} refused a Package #0 because its digest is wrong`,
    'device.session-failed': ({ device, server, reason }) =>
      `${short(device)}: session with ${server} failed: ${reason}`,
  },
  gateway: {
    'mqtt.connected': ({ protocol }) => `connected to the broker, MQTT ${protocol === 5 ? '5' : '3.1.1'}`,
    'mqtt.disconnected': () => 'lost the connection to the broker; reconnects by itself',
    'bootstrap.issued': ({ device }) =>
      `bootstrap server: ${short(device)} proved its factory secret and gets new secrets (GwMO 8.4.2)`,
    'bootstrap.refused': ({ device, reason }) => `bootstrap server refused ${short(device)}: ${reason}`,
    'lwm2m.bootstrapped': ({ device }) =>
      `LwM2M bootstrap server: gave ${short(device)} an account for this gateway`,
    'registration.proven': ({ device, model }) =>
      `${short(device)} registered and reports its model: ${model}`,
    'device.expected': ({ device }) =>
      `the DM server announced ${short(device)}, which will attach here (GwMO 8.4.1)`,
    'device.attached': ({ device, protocol }) =>
      `${short(device)} ${protocol === 'LwM2M' ? 'answered' : 'proved itself'} and is now in the inventory; a Device Attach Alert waits in the outbox`,
    'alert.delivered': ({ device, alert, status }) =>
      `the server confirmed the ${alertNames[String(alert)]} of ${subjectOf(alert, device)} with ${status}; the alert leaves the outbox`,
    'fanout.started': ({ devices }) => `starts a fan-out; number of targets: ${devices}`,
    'fanout.ended': ({ done, failed }) =>
      `the fan-out ended: ${done} succeeded, ${failed} failed; one Command Fanout Alert waits in the outbox`,
    'image.ready': ({ image, bytes }) =>
      `image ${image} is complete: ${bytes} bytes, and its SHA-256 is right`,
    'device.detached': ({ device, reason }) =>
      `detached ${short(device)} (${reason}) and deleted its credential`,
    'device.unreachable': ({ device, reason }) =>
      `${short(device)} is unreachable: ${reason}; it stays attached, and a Device Presence Alert waits in the outbox`,
    'device.reached': ({ device }) => `${short(device)} is reached again`,
    'notification.delivered': ({ device, server }) => `delivered Package #0 of ${server} to ${short(device)}`,
  },
  headend: {
    'gateway.state': ({ gateway, online }) => `gateway ${gateway} is ${online ? 'online' : 'offline'}`,
    'bootstrap.assisted': ({ device, gateway }) =>
      `gave ${short(device)} an account for ${gateway}, in the device's own session`,
    'alert.command-fanout': ({ gateway, correlator }) =>
      `Command Fanout Alert of ${gateway}, correlator ${correlator}`,
    'alert.image-operation': ({ gateway, name }) =>
      `Image Operation Alert: ${gateway} has finished its operation on image ${name}`,
    'alert.device-detach': ({ device, gateway, reason }) =>
      `Device Detach Alert: ${short(device)} left ${gateway} (${reason})`,
    'alert.device-presence': ({ device, gateway, state, reason }) =>
      `Device Presence Alert: ${gateway} says that ${short(device)} is ${state}${reason === undefined ? '' : `: ${reason}`}`,
    'alert.location-update': ({ device, gateway, before }) =>
      `Location Update Alert: ${short(device)} was behind ${before} and is now behind ${gateway}`,
    'device.let-go': ({ device, gateway }) => `${gateway} has detached ${short(device)}`,
    'alert.device-attach': ({ device, gateway, bootstrap }) =>
      `Device Attach Alert: ${short(device)} is behind ${gateway}, bootstrapped ${bootstrap === 'local' ? 'locally' : 'by this server'}`,
    'notification.sent': ({ device, gateway }) =>
      device === gateway
        ? `asks ${device} for a session (Package #0)`
        : `asks ${short(device)} for a session: Package #0 through ${gateway}`,
  },
};

const columns = { device: 'device  ', gateway: 'gateway ', headend: 'server  ' } as const;

export interface NarratorOptions {
  readonly began?: number;
  /** Gets all events as well. */
  readonly next?: Events;
  /** Name of the party in each line, eight characters. */
  readonly column?: string | undefined;
}

/** Tells what happens, one line per step, with the seconds since the start. */
export class Narrator implements Events {
  readonly #party: keyof typeof columns;
  readonly #print: (line: string) => void;
  readonly #began: number;
  readonly #next: Events | undefined;
  readonly #column: string;

  constructor(
    party: keyof typeof columns,
    print: (line: string) => void,
    { began = performance.now(), next, column = columns[party] }: NarratorOptions = {},
  ) {
    this.#party = party;
    this.#print = print;
    this.#began = began;
    this.#next = next;
    this.#column = column;
  }

  emit<Name extends EventName>(name: Name, fields: FieldsOf<Name>): void {
    const party: Sentences = sentences[this.#party];
    const sentence = party[name]?.(fields);
    if (sentence !== undefined) {
      const seconds = ((performance.now() - this.#began) / 1000).toFixed(2).padStart(7);
      this.#print(`${seconds}  ${this.#column}  ${inOneLine(sentence)}`);
    }
    this.#next?.emit(name, fields);
  }
}
