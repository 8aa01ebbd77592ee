import { FairMap } from '../../../base/fair-map.ts';
import type { Place } from './association.ts';
import { keyOf } from './association-table.ts';
import { Cookies } from './cookies.ts';
import type { Established, Handshake } from './handshake.ts';
import { helloVerifyBytes, splitCookie } from './hellos.ts';
import { fragmentBytes, type HandshakeMessage, MessageType, readFragments } from './messages.ts';
import { ContentType, type DtlsRecord, dtls10, plainRecord } from './record.ts';
import type { ServerSettings } from './server-choice.ts';
import { ServerHandshake } from './server-handshake.ts';
import type { Surroundings } from './surroundings.ts';

/** Most handshakes that clients have begun: all in all, of one address, of one prefix. */
export interface HalfOpenLimits {
  readonly entries: number;
  readonly perAddress: number;
  readonly perPrefix: number;
}

export interface AcceptorParts {
  readonly surroundings: Surroundings;
  readonly settings: Omit<ServerSettings, 'noKey' | 'mayCauseSignatures'>;
  readonly halfOpen: HalfOpenLimits;
  /** Whether a client at this address, which receives there, may begin a handshake. `tokens` are 1 if absent. */
  readonly admits: (address: string, tokens?: number) => boolean;
  readonly opened: (established: Established) => void;
  readonly refused: (place: Place, reason: string, claimed: string) => void;
}

/**
 * Tokens of the entry for a handshake with certificates, the one of each handshake included: it costs several times as much CPU as one
 * with a pre-shared key.
 */
export const certifiedTokens = 4;

interface HalfOpen {
  readonly handshake: Handshake;
  /** The cookie of its ClientHello, which tells apart one that came again from a new one. */
  readonly cookie: Buffer;
}

/**
 * Accepts clients. Before a client has returned a cookie nothing is kept of it (RFC 6347 section 4.2.1), and the answer is shorter
 * than what it answers.
 */
export class Acceptor {
  readonly #parts: AcceptorParts;
  readonly #settings: ServerSettings;
  readonly #cookies: Cookies;
  readonly #halfOpen: FairMap<HalfOpen>;

  constructor(parts: AcceptorParts) {
    const { clock, entropy } = parts.surroundings;
    this.#parts = parts;
    this.#settings = {
      ...parts.settings,
      noKey: entropy.bytes(16),
      mayCauseSignatures: (address) => parts.admits(address, certifiedTokens - 1),
    };
    this.#cookies = new Cookies(clock, entropy);
    this.#halfOpen = new FairMap(parts.halfOpen, (_, { handshake }) => handshake.stop());
  }

  /** Number of handshakes that run. */
  get size(): number {
    return this.#halfOpen.size;
  }

  /** The handshake that runs with a remote. */
  at(remote: string): Handshake | undefined {
    return this.#halfOpen.get(remote)?.handshake;
  }

  /** Takes in a record of epoch 0. */
  take(record: DtlsRecord, place: Place): void {
    if (record.type === ContentType.Handshake && record.fragment[0] === MessageType.ClientHello)
      this.#greet(record, place);
    else this.at(keyOf(place))?.take(record);
  }

  stop(): void {
    for (const [, { handshake }] of this.#halfOpen.entries()) handshake.stop();
  }

  /** Answers a ClientHello. One in several fragments is ignored: to put it together takes state. */
  #greet(record: DtlsRecord, place: Place): void {
    const [fragment] = readFragments(record.fragment);
    if (!fragment || fragment.bytes.length !== fragment.length) return;
    const hello = { type: fragment.type, sequence: fragment.sequence, body: fragment.bytes };
    const split = splitCookie(hello.body);
    if (!split) return;
    const { cookie, rest } = split;
    const remote = keyOf(place);
    if (!this.#cookies.isValid(cookie, remote, rest)) {
      const answer = this.#verification(hello.sequence, this.#cookies.issue(remote, rest));
      const { send } = this.#parts.surroundings;
      send(plainRecord(ContentType.Handshake, record.sequence, answer, dtls10), place);
      return;
    }
    const running = this.#halfOpen.get(remote);
    if (running?.cookie.equals(cookie)) running.handshake.repeat();
    else if (this.#parts.admits(place.address))
      this.#begin(hello, record.sequence, Buffer.from(cookie), place);
  }

  /** A HelloVerifyRequest. Its message_seq is that of the ClientHello (RFC 6347 section 4.2.2). */
  #verification(sequence: number, cookie: Buffer): Buffer {
    const bytes = helloVerifyBytes(cookie);
    const type = MessageType.HelloVerifyRequest;
    return fragmentBytes({ type, sequence, length: bytes.length, offset: 0, bytes });
  }

  #begin(hello: HandshakeMessage, record: number, cookie: Buffer, place: Place): void {
    const { surroundings, opened, refused } = this.#parts;
    const remote = keyOf(place);
    this.#drop(remote);
    let isOver = false;
    const over = () => {
      isOver = true;
      this.#halfOpen.delete(remote);
    };
    let handshake: ServerHandshake | undefined;
    handshake = new ServerHandshake(
      {
        ...surroundings,
        place,
        send: (datagram) => surroundings.send(datagram, place),
        done: (established) => {
          over();
          opened(established);
        },
        dropped: over,
        failed: (reason) => {
          over();
          refused(place, reason, handshake?.claimed ?? '');
        },
      },
      this.#settings,
      // The bytes of a datagram may be in a buffer that is used again.
      { ...hello, body: Buffer.from(hello.body) },
      record,
    );
    if (!isOver) this.#halfOpen.set(remote, place.address, { handshake, cookie });
  }

  #drop(remote: string): void {
    this.#halfOpen.get(remote)?.handshake.stop();
    this.#halfOpen.delete(remote);
  }
}
