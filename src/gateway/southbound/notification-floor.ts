import type { Clock, Timer } from '../../base/clock.ts';
import { type Rate, TokenBucket } from '../../base/token-buckets.ts';

export interface NotificationFloorParts<T> {
  readonly clock: Clock;
  /** Gets what passes. */
  readonly passed: (key: string, notification: T) => void;
  /** Called when a notification is dropped, for the first time since all was calm. */
  readonly exceeded: () => void;
}

/**
 * Notifications that pass at once: a client may have stored so many while it was away, and as many resources may change together.
 */
export const floorBurst = 64;
/** Seconds between two notifications of one observation without `pmin`. */
const usualPeriod = 1;

/**
 * Bounds the notifications of one client to what `pmin` lets it send (LwM2M core 1.1, section 5.1.2): the server's side of `pmin`, for
 * clients that do not heed it. Beyond that the newest notification of each observation is held until there is room, so the last state
 * is always passed on.
 */
export class NotificationFloor<T> {
  readonly #parts: NotificationFloorParts<T>;
  readonly #bucket: TokenBucket;
  readonly #held = new Map<string, T>();
  #rate: Rate = { rate: 1 / usualPeriod, burst: floorBurst };
  #timer: Timer | undefined;
  #isCalm = true;

  constructor(parts: NotificationFloorParts<T>) {
    this.#parts = parts;
    this.#bucket = new TokenBucket(this.#rate, parts.clock.now());
  }

  /** Sets what is observed: the `pmin` of each observation in seconds. */
  observe(periods: readonly (number | undefined)[]): void {
    const perSecond = periods.reduce<number>(
      (sum, pmin = usualPeriod) => sum + 1 / Math.max(pmin, usualPeriod),
      0,
    );
    this.#bucket.level(this.#rate, this.#parts.clock.now());
    this.#rate = { rate: perSecond || 1 / usualPeriod, burst: floorBurst };
  }

  /**
   * Passes a notification on, now or when there is room, unless a newer one of the same observation comes first. Returns whether it
   * was passed on now.
   */
  take(key: string, notification: T): boolean {
    const { clock, passed, exceeded } = this.#parts;
    const now = clock.now();
    if (this.#bucket.level(this.#rate, now) >= floorBurst) this.#isCalm = true;
    if (this.#held.size === 0 && this.#bucket.take(this.#rate, now)) {
      passed(key, notification);
      return true;
    }
    if (this.#held.has(key) && this.#isCalm) {
      this.#isCalm = false;
      exceeded();
    }
    this.#held.set(key, notification);
    this.#arm();
    return false;
  }

  /** Drops what is held of one observation, or of all. */
  drop(key?: string): void {
    if (key === undefined) this.#held.clear();
    else this.#held.delete(key);
    if (this.#held.size > 0) return;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    const { clock } = this.#parts;
    const missing = 1 - this.#bucket.level(this.#rate, clock.now());
    // A millisecond more, since parts of tokens are not exact.
    const delay = Math.max(0, missing / this.#rate.rate) * 1000 + 1;
    this.#timer ??= clock.after(delay, () => {
      this.#timer = undefined;
      this.#passHeld();
    });
  }

  #passHeld(): void {
    const { clock, passed } = this.#parts;
    for (const [key, notification] of this.#held) {
      if (!this.#bucket.take(this.#rate, clock.now())) break;
      this.#held.delete(key);
      passed(key, notification);
    }
    if (this.#held.size > 0) this.#arm();
  }
}
