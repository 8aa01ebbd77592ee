import type { EventFields, Events, Severity } from '../base/events.ts';

type Sentence = (fields: EventFields) => string | undefined;

const short = (id: unknown): string => String(id).replace(/^urn:dev:/, '');

/** What is worth telling of each event, to somebody who has not read the specifications. */
const sentences: Readonly<Record<string, Readonly<Record<string, Sentence>>>> = {
  device: {
    'device.discovered': ({ device, gateway, resources }) =>
      `${short(device)} found a gateway at ${gateway}, which offers ${resources}`,
    'device.bootstrapped': ({ device, gateway }) =>
      `${short(device)} checked the bootstrap's MAC and has an account for gateway ${gateway} now`,
    'device.session-started': ({ device, server, session, tunnelled }) =>
      `${short(device)} opens DM session ${session} with ${server}${tunnelled ? ', through the tunnel' : ''}`,
    'device.command': ({ device, server, command, uri, status }) =>
      `${short(device)} did ${command} ${uri} for ${server}: ${status}`,
    'device.attached': ({ device, gateway }) => `${short(device)} is attached to ${gateway}`,
    'device.notified': ({ device, server, session }) =>
      `${short(device)} got Package #0, checked its digest, and will open session ${session} with ${server}`,
    'device.attach-failed': ({ device, reason, retryInSeconds }) =>
      `${short(device)} could not attach: ${reason}; again in ${retryInSeconds} s`,
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
    'device.expected': ({ device }) => `the DM server told of ${short(device)}, which will come (GwMO 8.4.1)`,
    'device.attached': ({ device }) =>
      `${short(device)} proved itself and is in the inventory; a Device Attach Alert is in the outbox`,
    'alert.delivered': ({ device, status }) =>
      `the server took the Device Attach Alert of ${short(device)} with ${status}; it leaves the outbox`,
    'notification.delivered': ({ device }) => `passed Package #0 on to ${short(device)}, bytes untouched`,
  },
  headend: {
    'gateway.state': ({ gateway, online }) => `gateway ${gateway} is ${online ? 'online' : 'offline'}`,
    'bootstrap.assisted': ({ device, gateway }) =>
      `gave ${short(device)} an account for ${gateway}, in its own session`,
    'alert.device-attach': ({ device, gateway, bootstrap }) =>
      `Device Attach Alert: ${short(device)} is behind ${gateway}, bootstrapped ${bootstrap === 'local' ? 'locally' : 'by this server'}`,
    'notification.sent': ({ device, gateway }) =>
      device === gateway
        ? `asks ${device} for a session (Package #0)`
        : `asks ${short(device)} for a session: Package #0 through ${gateway}`,
  },
};

const columns = { device: 'device  ', gateway: 'gateway ', headend: 'server  ' } as const;

/** Tells what happens, one line per step, with the seconds since the start. */
export class Narrator implements Events {
  readonly #party: keyof typeof columns;
  readonly #print: (line: string) => void;
  readonly #began: number;
  readonly #next: Events | undefined;

  constructor(
    party: keyof typeof columns,
    print: (line: string) => void,
    began = performance.now(),
    next?: Events,
  ) {
    this.#party = party;
    this.#print = print;
    this.#began = began;
    this.#next = next;
  }

  emit(severity: Severity, name: string, fields: EventFields = {}): void {
    const sentence = sentences[this.#party]?.[name]?.(fields);
    if (sentence !== undefined) {
      const seconds = ((performance.now() - this.#began) / 1000).toFixed(2).padStart(7);
      this.#print(`${seconds}  ${columns[this.#party]}  ${sentence}`);
    }
    this.#next?.emit(severity, name, fields);
  }
}
