import { type Clock, type Monotonic, plus } from '../../base/clock.ts';
import { ownLimits } from '../../dm/header.ts';

/** Smallest limit, in bytes: a header with its credential and a command fit into it. */
const floor = 2048;
/** Milliseconds for which a smaller limit holds. */
const holds = 3_600_000;

/**
 * The largest message of the gateway's own sessions, in bytes. The gateway announces it to the server as well, because the
 * answers come by the same way. It is what the uplink takes. If a message is refused as too large further up, such as by the
 * broker of a parent gateway, the limit is halved for an hour.
 */
export class MessageLimit {
  readonly #clock: Clock;
  readonly #largestBody: () => number;
  #halved: { readonly bytes: number; readonly until: Monotonic } | undefined;

  /** @param largestBody bytes that the uplink takes now */
  constructor(clock: Clock, largestBody: () => number) {
    this.#clock = clock;
    this.#largestBody = largestBody;
  }

  get bytes(): number {
    if (this.#halved && this.#halved.until <= this.#clock.now()) this.#halved = undefined;
    const halved = this.#halved?.bytes ?? ownLimits.maxMsgSize;
    return Math.max(floor, Math.min(ownLimits.maxMsgSize, this.#largestBody(), halved));
  }

  /**
   * A message was refused as too large.
   * @param limit the limit of its session
   * @returns whether messages can be smaller now
   */
  refused(limit: number): boolean {
    if (this.bytes < limit) return true;
    if (limit <= floor) return false;
    this.#halved = {
      bytes: Math.max(floor, Math.floor(limit / 2)),
      until: plus(this.#clock.now(), holds),
    };
    return true;
  }
}
