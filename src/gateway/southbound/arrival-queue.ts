import type { Clock, Monotonic } from '../../base/clock.ts';
import type { Remote } from '../../wire/coap/message.ts';

/** Where a datagram goes: its endpoint. */
export type Receive = (octets: Buffer, remote: Remote) => void;

interface Waiting {
  readonly receive: Receive;
  readonly octets: Buffer;
  readonly remote: Remote;
}

/** Milliseconds of one turn of the event loop after which further requests wait for the next turns. */
const turnBudget = 2;
/** Most waiting requests that are handled in one turn. The loop reads between two turns. A turn costs some CPU itself. */
const handledAtOnce = 4;
/** Milliseconds between two beginnings of a turn that are noticed while nothing waits. */
const noticeEvery = 1;
/** Datagrams that libuv reads from a socket in one turn. When as many came, the socket has more. */
const readAtOnce = 32;

/** Most requests that wait, and most bytes of them. More requests are handled at once, as they come. */
export const arrivalLimits = { requests: 1024, bytes: 1024 * 1024 } as const;

/**
 * Lets requests wait when the event loop is busy, so that it goes on reading: a ping, an acknowledgement or a response is
 * taken at once, even behind many requests. They would wait in the socket otherwise. Requests are handled in the order in
 * which they came.
 */
export class ArrivalQueue {
  readonly #clock: Clock;
  #waiting: Waiting[] = [];
  /** Requests of `#waiting` that were handled already. */
  #taken = 0;
  #bytes = 0;
  /** When the turn began that is watched. Undefined: none is. */
  #turn: Monotonic | undefined;
  /** When a turn was watched last. */
  #last: Monotonic | undefined;
  /** Datagrams of this turn. */
  #arrived = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Number of requests that wait. */
  get size(): number {
    return this.#waiting.length - this.#taken;
  }

  /** Takes a datagram from a socket, and passes it to `receive`: at once, or later. */
  take(receive: Receive, octets: Buffer, remote: Remote): void {
    this.#arrived++;
    if (isRequest(octets) && this.#mustWait() && this.#hasRoomFor(octets)) {
      this.#waiting.push({ receive, octets, remote });
      this.#bytes += octets.length;
    } else receive(octets, remote);
  }

  /** Drops what waits. */
  stop(): void {
    this.#waiting = [];
    this.#taken = 0;
    this.#bytes = 0;
  }

  #mustWait(): boolean {
    if (this.size > 0) return true;
    const now = this.#clock.now();
    if (this.#turn !== undefined) return now - this.#turn >= turnBudget;
    if (this.#last === undefined || now - this.#last >= noticeEvery) this.#watch(now);
    return false;
  }

  #hasRoomFor({ length }: Buffer): boolean {
    return this.size < arrivalLimits.requests && this.#bytes + length <= arrivalLimits.bytes;
  }

  /** Watches a turn: the immediate runs at its end, after all that is read in it. */
  #watch(now: Monotonic): void {
    this.#turn = now;
    setImmediate(() => this.#ended());
  }

  #ended(): void {
    const now = this.#clock.now();
    const isReadingOn = this.#arrived >= readAtOnce && this.size < arrivalLimits.requests / 2;
    this.#turn = undefined;
    this.#last = now;
    this.#arrived = 0;
    if (this.size === 0) return;
    if (!isReadingOn)
      for (let count = 0; count < handledAtOnce && this.size > 0; count++) {
        this.#handleNext();
        if (this.#clock.now() - now >= turnBudget) break;
      }
    this.#watch(now);
  }

  #handleNext(): void {
    const next = this.#waiting[this.#taken++]!;
    if (this.#taken >= this.#waiting.length / 2) {
      this.#waiting = this.#waiting.slice(this.#taken);
      this.#taken = 0;
    }
    this.#bytes -= next.octets.length;
    next.receive(next.octets, next.remote);
  }
}

/** Whether a datagram is a request, from its code of class 0 (RFC 7252 section 3). A code of 0.00 is an empty message. */
const isRequest = (octets: Buffer): boolean => {
  const code = octets[1];
  return code !== undefined && code !== 0 && code < 32;
};
