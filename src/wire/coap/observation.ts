import type { Monotonic } from '../../base/clock.ts';
import type { CoapMessage } from './codec.ts';
import { isSuccess } from './codes.ts';
import type { Remote } from './message.ts';
import { Option, uintOption } from './options.ts';

/** What takes the messages with the token of an observation, from its first response on. */
export interface NotificationTaker {
  /** The token of the request, and of all notifications. */
  readonly token: Uint8Array;
  /** Whether `take` itself proves who has sent a message, so that it may come from anywhere. */
  readonly isProof: boolean;
  /** The peer has said that it notifies. `forget` frees the token: later notifications get a Reset. */
  begun(forget: () => void): void;
  /** Takes a message from this remote. Returns false for one that is not from the peer; it is dropped without an answer. */
  take(message: CoapMessage, from: Remote, now: Monotonic): boolean;
  /** Nothing that can be read comes any more: the endpoint has stopped, or does not understand the peer. */
  lost(): void;
}

/** A response or notification with its whole body. */
type CoapAnswer = Pick<CoapMessage, 'code' | 'options' | 'payload'>;

export interface ObservationParts {
  readonly token: Uint8Array;
  /** Gets the first response and each notification that is newer than the one before, with its whole body. Never throws. */
  readonly notified: (answer: CoapAnswer, from: Remote) => void;
  /** The peer does not notify any more, and has sent this; undefined when nothing that can be read comes any more. */
  readonly ended: (answer: CoapMessage | undefined) => void;
}

/** Whether a message is the first of several blocks (RFC 7959 section 2.2). */
const hasMoreBlocks = ({ options }: CoapMessage): boolean =>
  ((uintOption(options, Option.Block2) ?? 0) & 8) !== 0;

/** The number of the Observe option has 24 bits. */
const half = 2 ** 23;
/** Milliseconds after which a notification is newer whatever its number is. */
const numbersHoldFor = 128_000;

/**
 * Client side of one observation (RFC 7641). It is given to the request that asks for it (`CoapCall`). Of two notifications in work
 * the older one is given up: what counts is the newest state.
 */
export class Observation implements NotificationTaker {
  readonly isProof = false;
  readonly token: Uint8Array;
  /** Fetches the rest of a notification whose first block came. Set by `call`. */
  rest: ((first: CoapMessage) => Promise<CoapAnswer>) | undefined;
  readonly #parts: ObservationParts;
  #forget: (() => void) | undefined;
  #last: { readonly number: number; readonly at: Monotonic } | undefined;
  #taken = 0;
  /** The newest notification of which only the first block is there. */
  #first: { readonly message: CoapMessage; readonly from: Remote; readonly serial: number } | undefined;
  #isFetching = false;

  constructor(parts: ObservationParts) {
    this.#parts = parts;
    this.token = parts.token;
  }

  /** Whether the peer has said that it notifies, and neither side has ended that. */
  get isActive(): boolean {
    return this.#forget !== undefined;
  }

  begun(forget: () => void): void {
    this.#forget = forget;
  }

  /** Takes no notifications any more. They get a Reset, by which the peer ends the observation (section 3.6). */
  end(): void {
    this.#forget?.();
    this.#forget = undefined;
    this.#taken++;
  }

  lost(): void {
    this.end();
    this.#parts.ended(undefined);
  }

  take(message: CoapMessage, from: Remote, now: Monotonic): boolean {
    const number = uintOption(message.options, Option.Observe);
    if (number === undefined || !isSuccess(message.code)) {
      this.end();
      this.#parts.ended(message);
    } else if (this.#isNewer(number, now)) {
      this.#last = { number, at: now };
      this.#deliver(message, from, ++this.#taken);
    }
    return true;
  }

  /** Section 3.4. */
  #isNewer(number: number, now: Monotonic): boolean {
    if (!this.#last) return true;
    const { number: last, at } = this.#last;
    const ahead = (number - last) & (2 * half - 1);
    return (ahead > 0 && ahead < half) || now > at + numbersHoldFor;
  }

  #deliver(message: CoapMessage, from: Remote, serial: number): void {
    if (hasMoreBlocks(message)) {
      this.#first = { message, from, serial };
      if (!this.#isFetching) void this.#fetch();
    } else this.#parts.notified(message, from);
  }

  /** Fetches the rest of the newest notification, one at a time. Never rejects. */
  async #fetch(): Promise<void> {
    this.#isFetching = true;
    for (let first = this.#first; first; first = this.#first) {
      const { message, from, serial } = first;
      this.#first = undefined;
      // The first response may come before the request has said how to fetch the rest.
      const answer = await Promise.resolve()
        .then(() => this.rest?.(message))
        .catch(() => undefined);
      // A newer notification has come, or nobody waits for this one any more.
      if (serial !== this.#taken) continue;
      if (answer && isSuccess(answer.code)) this.#parts.notified(answer, from);
      else this.lost();
    }
    this.#isFetching = false;
  }
}
