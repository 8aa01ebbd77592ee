import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock, Monotonic } from '../base/clock.ts';
import { PosternError } from '../base/errors.ts';
import { LockOut } from './lock-out.ts';

/** Wrong proofs that are looked at: of one party by whatever way, and of all parties. `each` is in milliseconds. */
export interface GuessRate {
  /** Wrong proofs that may come at once. */
  readonly burst: number;
  /** Time after which one more may come. */
  readonly each: number;
}

const rates = { party: { burst: 64, each: 5000 }, total: { burst: 1024, each: 50 } } as const;
/** Parties whose rate is remembered. */
const parties = 4096;

/**
 * Limits guesses. Failures are counted by the way that they came by: a party, and the address that failed in its name. So
 * nobody locks a party out from elsewhere. All failures of a party, and all failures together, have a rate besides, because
 * someone may have many addresses.
 */
export class ProofGuard {
  readonly #clock: Clock;
  readonly #ways: LockOut;
  readonly #total: Allowance;
  readonly #parties = new BoundedMap<string, Allowance>(parties);

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#ways = new LockOut(clock);
    this.#total = new Allowance(rates.total, clock.now());
  }

  /** Why no guess of this party is looked at now, by this way: `lockedOut`. Undefined when one is. */
  lockOf(party: string, way: string): PosternError | undefined {
    const now = this.#clock.now();
    const wait = Math.max(
      this.#ways.remaining(keyOf(party, way)),
      this.#parties.get(party)?.remaining(now) ?? 0,
      this.#total.remaining(now),
    );
    if (wait <= 0) return undefined;
    return new PosternError('lockedOut', `too many failed proofs; try again in ${Math.ceil(wait / 1000)} s`);
  }

  /** Counts a wrong proof. Returns how many there were in a row by this way. */
  failed(party: string, way: string): number {
    const now = this.#clock.now();
    const allowance = this.#parties.get(party) ?? new Allowance(rates.party, now);
    allowance.take(now);
    this.#parties.set(party, allowance);
    this.#total.take(now);
    return this.#ways.failed(keyOf(party, way));
  }

  /** Forgets the failures by this way. */
  succeeded(party: string, way: string): void {
    this.#ways.succeeded(keyOf(party, way));
  }
}

const keyOf = (party: string, way: string): string => `${way} ${party}`;

/** A number that sinks by one with each failure, and rises with time up to a burst. */
class Allowance {
  readonly #rate: GuessRate;
  #left: number;
  #at: Monotonic;

  constructor(rate: GuessRate, now: Monotonic) {
    this.#rate = rate;
    this.#left = rate.burst;
    this.#at = now;
  }

  /** Milliseconds until a failure is allowed. */
  remaining(now: Monotonic): number {
    const left = this.#leftAt(now);
    return left >= 1 ? 0 : (1 - left) * this.#rate.each;
  }

  take(now: Monotonic): void {
    this.#left = Math.max(0, this.#leftAt(now) - 1);
    this.#at = now;
  }

  #leftAt(now: Monotonic): number {
    return Math.min(this.#rate.burst, this.#left + (now - this.#at) / this.#rate.each);
  }
}
