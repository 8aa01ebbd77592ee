import type { EventName, FieldsOf } from '../base/event-table.ts';
import type { Events } from '../base/events.ts';

type Sentences = { readonly [Name in EventName]?: (fields: FieldsOf<Name>) => string };

const short = (id: unknown): string => String(id).replace(/^urn:dev:/, '');

const alertNames: Readonly<Record<string, string>> = {
  'device-attach': 'Device Attach Alert',
  'device-detach': 'Device Detach Alert',
  'command-fanout': 'Command Fanout Alert',
  'image-operation': 'Image Operation Alert',
};

/** What is worth telling of each event, to somebody who has not read the specifications. */
const sentences: Readonly<Record<keyof typeof columns, Sentences>> = {
  device: {
    'device.discovered': ({ device, gateway, resources }) =>
      `${short(device)} found a gateway at ${gateway}, which offers ${resources}`,
    'device.bootstrapped': ({ device, server }) =>
      `${short(device)} checked the bootstrap's MAC and has an account for ${server} now`,
    'device.account-taken': ({ device, gateway }) =>
      `${short(device)} took an account for the gateway at ${gateway}`,
    'device.session-started': ({ device, server, session, tunnelled }) =>
      `${short(device)} opens DM session ${session} with ${server}${tunnelled ? ', through the tunnel' : ''}`,
    'device.command': ({ device, server, command, uri, status }) =>
      `${short(device)} did ${command}${uri === undefined ? '' : ` ${uri}`} for ${server}: ${status}`,
    'device.attach-done': ({ device, gateway }) => `${short(device)} is attached to ${gateway}`,
    'device.written': ({ device, path }) => `${short(device)} took a value for ${path}`,
    'device.executed': ({ device, path }) => `${short(device)} executed ${path}`,
    'device.notified': ({ device, server, session }) =>
      `${short(device)} got Package #0, checked its digest, and will open session ${session} with ${server}`,
    'device.location-changed': ({ device, from }) =>
      `${short(device)} is not where ${from} is any more, and will say so`,
    'device.downloaded': ({ device, bytes }) =>
      `${short(device)} has the image, ${bytes} bytes, block by block from its gateway`,
    'device.updated': ({ device, version }) => `${short(device)} runs version ${version} now`,
    'device.attach-failed': ({ device, reason, retryInSeconds }) =>
      `${short(device)} could not attach: ${reason}${retryInSeconds === undefined ? '' : `; again in ${retryInSeconds} s`}`,
    'device.notification-refused': ({ device }) =>
      `${short(device)} refused a Package #0 with a wrong digest`,
    'device.session-failed': ({ device, server, reason }) =>
      `${short(device)}: session with ${server} failed: ${reason}`,
  },
  gateway: {
    'mqtt.connected': ({ protocol }) => `connected to the broker, MQTT ${protocol === 5 ? '5' : '3.1.1'}`,
    'mqtt.disconnected': () => 'lost the broker; comes back by itself',
    'coap.insecure': () => 'serves plain CoAP without DTLS, as this demo allows on loopback',
    'bootstrap.issued': ({ device }) =>
      `bootstrap server: ${short(device)} proved its factory secret; fresh secrets are on their way (GwMO 8.4.2)`,
    'bootstrap.refused': ({ device, reason }) => `bootstrap server refused ${short(device)}: ${reason}`,
    'lwm2m.insecure': () => 'serves LwM2M clients without security, as this demo allows on loopback',
    'lwm2m.bootstrapped': ({ device }) =>
      `LwM2M bootstrap server: gave ${short(device)} an account for this gateway`,
    'registration.proven': ({ device, model }) =>
      `${short(device)} registered, and says that it is a ${model}`,
    'device.expected': ({ device }) => `the DM server told of ${short(device)}, which will come (GwMO 8.4.1)`,
    'device.attached': ({ device, protocol }) =>
      `${short(device)} ${protocol === 'LwM2M' ? 'answered' : 'proved itself'} and is in the inventory; a Device Attach Alert is in the outbox`,
    'alert.delivered': ({ device, alert, status }) =>
      `the server took the ${alertNames[String(alert)]} of ${short(device)} with ${status}; it leaves the outbox`,
    'fanout.started': ({ devices }) => `will ask ${devices} devices, each in a session of its own`,
    'fanout.ended': ({ done, failed }) =>
      `${done} devices did it, ${failed} did not; one Command Fanout Alert is in the outbox`,
    'image.ready': ({ image, bytes }) => `image ${image} is here, ${bytes} bytes, and its SHA-256 is right`,
    'device.detached': ({ device, reason }) =>
      `${short(device)} is gone (${reason}), and its credential with it`,
    'notification.delivered': ({ device, server }) =>
      `handed Package #0 of ${server} to ${short(device)}, bytes untouched`,
  },
  headend: {
    'gateway.state': ({ gateway, online }) => `gateway ${gateway} is ${online ? 'online' : 'offline'}`,
    'bootstrap.assisted': ({ device, gateway }) =>
      `gave ${short(device)} an account for ${gateway}, in its own session`,
    'alert.command-fanout': ({ gateway, correlator }) =>
      `Command Fanout Alert of ${gateway}, correlator ${correlator}`,
    'alert.image-operation': ({ gateway, name }) => `Image Operation Alert: ${gateway} is done with ${name}`,
    'alert.device-detach': ({ device, gateway, reason }) =>
      `Device Detach Alert: ${short(device)} left ${gateway} (${reason})`,
    'alert.location-update': ({ device, gateway, before }) =>
      `Location Update Alert: ${short(device)} was behind ${before} and is behind ${gateway} now`,
    'device.let-go': ({ device, gateway }) => `${gateway} has let ${short(device)} go`,
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
  /** Hears of all events as well. */
  readonly next?: Events;
  /** What stands before each line, eight characters. */
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
      this.#print(`${seconds}  ${this.#column}  ${sentence}`);
    }
    this.#next?.emit(name, fields);
  }
}
