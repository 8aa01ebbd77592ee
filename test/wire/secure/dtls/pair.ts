import { seededEntropy } from '../../../../src/base/entropy.ts';
import type { Association } from '../../../../src/wire/secure/dtls/association.ts';
import { type ClientCredentials, DtlsEndpoint } from '../../../../src/wire/secure/dtls/endpoint.ts';
import type { DtlsParts } from '../../../../src/wire/secure/dtls/endpoint-parts.ts';
import type { Established } from '../../../../src/wire/secure/dtls/handshake.ts';
import { HandClock } from '../../../hand-clock.ts';

/** A datagram on its way. */
export interface Passing {
  readonly from: 'client' | 'server';
  readonly bytes: Buffer;
  /** How many the same end has sent before. */
  readonly index: number;
}

/** What the path does with a datagram: the datagrams that arrive instead, in order. */
export type Path = (passing: Passing) => readonly Buffer[];

/** A path that changes the first wanted datagram, and no other. */
export const once = (wanted: (passing: Passing) => boolean, change: Path): Path => {
  let isDone = false;
  return (passing) => {
    if (isDone || !wanted(passing)) return [passing.bytes];
    isDone = true;
    return change(passing);
  };
};

/** What may happen to a datagram on its way. */
export const pathFaults: Readonly<Record<string, Path>> = {
  lost: () => [],
  doubled: ({ bytes }) => [bytes, bytes],
  cut: ({ bytes }) => [bytes.subarray(0, bytes.length - 7)],
  'cut to its first record': ({ bytes }) => [bytes.subarray(0, 13 + bytes.readUInt16BE(11))],
};

const straight: Path = ({ bytes }) => [bytes];

export const serverAt = { address: '192.0.2.1', port: 5684, local: '' };
export const clientAt = { address: '192.0.2.2', port: 40_000, local: '' };
export const key = Buffer.from('0123456789abcdef');

export interface PairOptions {
  readonly path?: Path;
  readonly seed?: number;
  readonly server?: Partial<DtlsParts>;
  readonly client?: Partial<DtlsParts>;
  readonly keys?: Readonly<Record<string, Uint8Array>>;
}

/** A client and a server of ours with a path between them and a clock that is moved by hand. */
export class Pair {
  readonly clock = new HandClock();
  readonly client: DtlsEndpoint;
  readonly server: DtlsEndpoint;
  /** Application data that arrived. */
  readonly atServer: string[] = [];
  readonly atClient: string[] = [];
  /** What happened at the server. */
  readonly told: string[] = [];
  /** All datagrams that were sent. */
  readonly sent: Passing[] = [];
  path: Path;
  /** Where the client is. */
  place = clientAt;
  #queue: (() => void)[] = [];
  #counts = { client: 0, server: 0 };

  constructor({ path = straight, seed = 1, server, client, keys = { device: key } }: PairOptions = {}) {
    this.path = path;
    const { clock } = this;
    this.server = new DtlsEndpoint({
      clock,
      entropy: seededEntropy(seed),
      send: (bytes) => this.#carry('server', bytes),
      received: (association, content) => {
        this.atServer.push(content.toString());
        this.server.send(association, Buffer.from(`echo ${content}`));
      },
      opened: ({ identity }) => this.told.push(`opened ${identity}`),
      closed: ({ identity }, reason) => this.told.push(`closed ${identity}: ${reason}`),
      refused: (_place, reason) => this.told.push(`refused: ${reason}`),
      server: { keyOf: (identity) => keys[identity] },
      ...server,
    });
    this.client = new DtlsEndpoint({
      clock,
      entropy: seededEntropy(seed + 1),
      send: (bytes) => this.#carry('client', bytes),
      received: (_association, content) => this.atClient.push(content.toString()),
      ...client,
    });
  }

  /** The client's association, at the server. */
  get atServerSide(): Association | undefined {
    return this.server.at(this.place.address, this.place.port);
  }

  /** Puts a datagram on the way, as if one end had sent it. */
  inject(from: Passing['from'], bytes: Buffer, place = this.place): void {
    this.#queue.push(() => this.#arrive(from, bytes, place));
    this.settle();
  }

  /** Lets all datagrams arrive that are on their way. */
  settle(): void {
    for (let next = this.#queue.shift(); next; next = this.#queue.shift()) next();
  }

  /** Lets datagrams arrive, and time pass, until a handshake ends. */
  async connect(
    credentials: Partial<ClientCredentials> = {},
  ): Promise<Established | { readonly code: string; readonly message: string }> {
    let outcome: Established | { code: string; message: string } | undefined;
    const done = this.client.connect(serverAt, { identity: 'device', key, ...credentials }).then(
      (established) => {
        outcome = established;
      },
      (error) => {
        outcome = error;
      },
    );
    for (let step = 0; step < 1000 && !outcome; step++) {
      this.settle();
      await Promise.resolve();
      await new Promise((resolve) => setImmediate(resolve));
      if (!outcome) this.clock.advance(100);
    }
    if (outcome) await done;
    return outcome ?? { code: 'none', message: 'no end' };
  }

  /** Sends a text to the server, lets time pass, and returns whether the echo of it arrived. */
  talk(text: string): boolean {
    const association = this.client.at(serverAt.address, serverAt.port);
    if (!association) return false;
    this.client.send(association, Buffer.from(text));
    this.settle();
    return this.atClient.includes(`echo ${text}`);
  }

  #carry(from: Passing['from'], bytes: Buffer): void {
    const passing = { from, bytes, index: this.#counts[from]++ };
    this.sent.push(passing);
    const { place } = this;
    for (const arriving of this.path(passing)) this.#queue.push(() => this.#arrive(from, arriving, place));
  }

  #arrive(from: Passing['from'], bytes: Buffer, place: typeof clientAt): void {
    // A copy, because the buffer of a socket is used again.
    const copy = Buffer.from(bytes);
    if (from === 'client') this.server.receive(copy, place);
    else this.client.receive(copy, serverAt);
    copy.fill(0xee);
  }
}

/** Whether a handshake succeeded. */
export const isOpen = (outcome: object): outcome is Established => 'association' in outcome;
