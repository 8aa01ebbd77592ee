import type { Clock } from '../base/clock.ts';
import { PosternError } from '../base/errors.ts';
import { type Rate, TokenBucket, TokenBuckets } from '../base/token-buckets.ts';
import { LockOut } from './lock-out.ts';

/** Wrong proofs that are looked at, of one party by whatever way, and of all parties together. */
export const guessRates = {
  party: { rate: 1, burst: 256 },
  total: { rate: 20, burst: 1024 },
} as const satisfies Record<string, Rate>;
/** Parties whose wrong proofs are counted. */
const parties = 4096;

/**
 * Limits guesses. Failures are counted by the way that they came by: a party, and the address that failed in its name. So
 * nobody locks a party out from elsewhere. All failures of a party, and all failures together, have a rate besides, because
 * someone may have many addresses.
 */
export class ProofGuard {
  readonly #clock: Clock;
  readonly #ways: LockOut;
  readonly #total: TokenBucket;
  readonly #parties = new TokenBuckets(guessRates.party, parties);

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#ways = new LockOut(clock);
    this.#total = new TokenBucket(guessRates.total, clock.now());
  }

  /** Why no guess of this party is looked at now, by this way: `lockedOut`. Undefined when one is. */
  lockOf(party: string, way: string): PosternError | undefined {
    const now = this.#clock.now();
    const seconds = Math.ceil(this.#ways.remaining(keyOf(party, way)) / 1000);
    const isLeft =
      this.#parties.of(party, now).level(guessRates.party, now) >= 1 &&
      this.#total.level(guessRates.total, now) >= 1;
    if (seconds <= 0 && isLeft) return undefined;
    return new PosternError('lockedOut', `too many failed proofs; try again in ${Math.max(1, seconds)} s`);
  }

  /** Counts a wrong proof. Returns how many there were in a row by this way. */
  failed(party: string, way: string): number {
    const now = this.#clock.now();
    this.#parties.of(party, now).take(guessRates.party, now);
    this.#total.take(guessRates.total, now);
    return this.#ways.failed(keyOf(party, way));
  }

  /** Forgets the failures by this way. */
  succeeded(party: string, way: string): void {
    this.#ways.succeeded(keyOf(party, way));
  }
}

const keyOf = (party: string, way: string): string => `${way} ${party}`;
