import type { Monotonic } from '../../base/clock.ts';
import type { CoapMessage } from './codec.ts';
import { isSuccess } from './codes.ts';
import type { Remote } from './message.ts';
import type { NotificationTaker } from './observation.ts';
import { hasOption, Option } from './options.ts';

interface Entry {
  readonly taker: NotificationTaker;
  readonly peer: string;
}

/** The party at a remote, wherever it is, or the place itself. */
const peerOf = ({ identity, key }: Remote): string => identity ?? key;
const keyOf = ({ buffer, byteOffset, length }: Uint8Array): string =>
  Buffer.from(buffer, byteOffset, length).toString('latin1');

/** What an endpoint observes at its peers, by token (RFC 7641 section 3.2). */
export class Observations {
  readonly #limit: number;
  readonly #byToken = new Map<string, Entry>();

  /** @param limit most observations at one time. Beyond it a response is a response and no notification follows */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#byToken.size;
  }

  /** A response has come to the request of an observation. When it says that the peer notifies, it is the first notification. */
  responded(remote: Remote, taker: NotificationTaker, message: CoapMessage, now: Monotonic): void {
    if (!isSuccess(message.code) || !hasOption(message.options, Option.Observe)) return;
    const key = keyOf(taker.token);
    if (this.#byToken.size >= this.#limit || this.#byToken.has(key)) return;
    const entry = { taker, peer: peerOf(remote) };
    this.#byToken.set(key, entry);
    taker.begun(() => {
      if (this.#byToken.get(key) === entry) this.#byToken.delete(key);
    });
    // A part of a response cannot be verified.
    if (!taker.take(message, remote, now)) taker.lost();
  }

  /** What takes a message, if it has the token of an observation, and comes from its peer. */
  takerOf(remote: Remote, { token }: CoapMessage): NotificationTaker | undefined {
    const entry = this.#byToken.get(keyOf(token));
    return entry && (entry.taker.isProof || entry.peer === peerOf(remote)) ? entry.taker : undefined;
  }

  stop(): void {
    const all = [...this.#byToken.values()];
    this.#byToken.clear();
    for (const { taker } of all) taker.lost();
  }
}
