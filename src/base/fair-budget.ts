import type { Monotonic } from './clock.ts';
import { type Rate, TokenBucket, TokenBuckets } from './token-buckets.ts';

/** Rates of a `FairBudget`. */
export interface FairRates {
  /** Of one source. What it takes beyond, it shares with all others that do so. */
  readonly own: Rate;
  /** Of all sources that are within their own rate. All others together get a tenth of it besides. */
  readonly all: Rate;
}

/** Part of the rate of all sources that those get together that are beyond their own rate. */
const beyondShare = 0.1;

/**
 * A budget for what anyone may cause. Some sources that ask for more and more use up a small share of it, and leave the rest
 * to those that ask seldom.
 */
export class FairBudget {
  readonly #rates: FairRates;
  readonly #beyondRate: Rate;
  readonly #within: TokenBucket;
  readonly #beyond: TokenBucket;
  readonly #sources: TokenBuckets;

  /** @param sources most sources that are remembered */
  constructor(rates: FairRates, sources: number, now: Monotonic) {
    const { own, all } = rates;
    this.#rates = rates;
    this.#beyondRate = { rate: all.rate * beyondShare, burst: Math.ceil(all.burst * beyondShare) };
    this.#within = new TokenBucket(all, now);
    this.#beyond = new TokenBucket(this.#beyondRate, now);
    this.#sources = new TokenBuckets(own, sources);
  }

  /** Whether `take` would succeed. */
  has(source: string, now: Monotonic): boolean {
    const { own, all } = this.#rates;
    return this.#sources.of(source, now).level(own, now) >= 1
      ? this.#within.level(all, now) >= 1
      : this.#beyond.level(this.#beyondRate, now) >= 1;
  }

  /** Takes one token. Returns false when there is none for this source. */
  take(source: string, now: Monotonic): boolean {
    return this.lacking(source, now) === undefined;
  }

  /** Takes tokens. Returns what has run out when there are not as many: the rate of this source, or that of all. */
  lacking(source: string, now: Monotonic, tokens = 1): keyof FairRates | undefined {
    const { own, all } = this.#rates;
    if (this.#sources.of(source, now).take(own, now, tokens))
      return this.#within.take(all, now, tokens) ? undefined : 'all';
    return this.#beyond.take(this.#beyondRate, now, tokens) ? undefined : 'own';
  }
}
