import { type Entropy, systemEntropy } from '../../../../src/base/entropy.ts';
import { CoapEndpoint } from '../../../../src/wire/coap/endpoint.ts';
import { type Handler, reply } from '../../../../src/wire/coap/message.ts';
import {
  OscoreContexts,
  type SenderRecord,
  type SenderStore,
} from '../../../../src/wire/secure/oscore/contexts.ts';
import type { OscoreParameters } from '../../../../src/wire/secure/oscore/keys.ts';
import { Oscore } from '../../../../src/wire/secure/oscore/protection.ts';
import { EventRecorder } from '../../../event-recorder.ts';
import { HandClock } from '../../../hand-clock.ts';

export const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Keeps the reservations in memory. They outlive a `Party`, as those on a disk do. */
export class MemorySenders implements SenderStore {
  readonly rows = new Map<string, SenderRecord>();
  /** Thrown by each write, as from a full disk. */
  fault: Error | undefined;
  writes = 0;
  settled = (): Promise<void> => Promise.resolve();

  get(mark: string): SenderRecord | undefined {
    return this.rows.get(mark);
  }

  put(mark: string, record: SenderRecord): void {
    if (this.fault) throw this.fault;
    this.writes++;
    this.rows.set(mark, record);
  }
}

export interface Datagram {
  readonly from: Party;
  readonly to: Party;
  readonly bytes: Buffer;
}

/** The datagrams between parties. A test may look at each, change it, drop it or send it again. */
export class Wire {
  readonly clock = new HandClock();
  readonly parties: Party[] = [];
  readonly sent: Datagram[] = [];
  /** What is done with a datagram; by default it arrives. */
  pass: (datagram: Datagram) => Buffer[] = ({ bytes }) => [bytes];
  /** Gets what is sent to an address where no party is. */
  astray: (bytes: Buffer, address: string) => void = () => {};
  readonly entropy: Entropy;
  readonly #queue: (() => void)[] = [];

  constructor(entropy: Entropy = systemEntropy) {
    this.entropy = entropy;
  }

  send(datagram: Datagram): void {
    this.sent.push(datagram);
    for (const bytes of this.pass(datagram))
      this.#queue.push(() => datagram.to.endpoint.receive(bytes, datagram.from.address, 5683));
  }

  /** Lets all datagrams arrive, and all answers to them. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 4; quiet++) {
      for (let next = this.#queue.shift(); next; next = this.#queue.shift()) {
        next();
        quiet = 0;
      }
      await turn();
    }
  }
}

/** An endpoint with OSCORE. */
export class Party {
  readonly address: string;
  readonly events = new EventRecorder();
  readonly senders: MemorySenders;
  readonly wire: Wire;
  handler: Handler = ({ remote }) => reply(0x45, { payload: `for ${remote.identity}` });
  contexts!: OscoreContexts;
  endpoint!: CoapEndpoint;
  readonly #known: Readonly<Record<string, OscoreParameters>>;

  constructor(
    wire: Wire,
    address: string,
    known: Readonly<Record<string, OscoreParameters>>,
    senders = new MemorySenders(),
  ) {
    this.wire = wire;
    this.address = address;
    this.senders = senders;
    this.#known = known;
    wire.parties.push(this);
    this.start();
  }

  /** A run of the process. What only the memory of the run before held is gone. */
  start(): void {
    const { wire, events, senders } = this;
    const { clock, entropy } = wire;
    this.contexts = new OscoreContexts({ clock, events, store: senders });
    for (const [identity, parameters] of Object.entries(this.#known)) this.contexts.add(identity, parameters);
    this.endpoint?.stop();
    this.endpoint = new CoapEndpoint({
      clock,
      entropy,
      events,
      handler: (request) => this.handler(request),
      protection: new Oscore({ contexts: this.contexts, clock, entropy, events }),
      send: (bytes, _port, address) => {
        const to = wire.parties.find((party) => party.address === address);
        if (to) wire.send({ from: this, to, bytes: Buffer.from(bytes) });
        else wire.astray(bytes, address);
      },
    });
  }

  /** Goes on without OSCORE, as a proxy that forwards what it cannot read. */
  unprotected(handler: Handler): void {
    const { wire, events } = this;
    const { clock, entropy } = wire;
    this.endpoint.stop();
    this.endpoint = new CoapEndpoint({
      clock,
      entropy,
      events,
      handler,
      // What is protected passes as it is.
      protection: {
        around: (own) => own,
        request: () => undefined,
        leave: () => {},
        partyAt: () => undefined,
      },
      send: (bytes, _port, address) => {
        const to = wire.parties.find((party) => party.address === address);
        if (to) wire.send({ from: this, to, bytes: Buffer.from(bytes) });
      },
    });
  }

  /** Makes it known where the peer of a context is, as a request from there does. */
  find(identity: string, { address }: Party): void {
    this.contexts.follow(this.contexts.get(identity)!, { address, port: 5683 });
  }

  /** Names of the events. */
  get said(): string[] {
    return this.events.all.map(({ name }) => name);
  }
}

const masterSecret = Buffer.from('0123456789abcdef');
export const ofDevice: OscoreParameters = { masterSecret, senderId: Buffer.of(1), recipientId: Buffer.of(2) };
export const ofGateway: OscoreParameters = {
  masterSecret,
  senderId: Buffer.of(2),
  recipientId: Buffer.of(1),
};

/** A gateway and a device that share a context. The device knows where the gateway is. */
export function pair(entropy?: Entropy) {
  const wire = new Wire(entropy);
  const gateway = new Party(wire, '192.0.2.1', { device: ofGateway });
  const device = new Party(wire, '192.0.2.2', { gateway: ofDevice });
  device.find('gateway', gateway);
  return { wire, gateway, device };
}
