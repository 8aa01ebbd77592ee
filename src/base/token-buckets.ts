import type { Monotonic } from './clock.ts';

/** How fast a bucket fills, and how much it holds. */
export interface Rate {
  /** Tokens per second. */
  readonly rate: number;
  /** Most tokens. A new bucket is full. */
  readonly burst: number;
}

/** One token bucket. */
export class TokenBucket {
  #tokens: number;
  #at: Monotonic;

  constructor({ burst }: Rate, now: Monotonic) {
    this.#tokens = burst;
    this.#at = now;
  }

  /** The tokens that are there now. */
  level({ rate, burst }: Rate, now: Monotonic): number {
    if (now > this.#at) {
      this.#tokens = Math.min(burst, this.#tokens + ((now - this.#at) * rate) / 1000);
      this.#at = now;
    }
    return this.#tokens;
  }

  /** Takes one token, or a part of one. Returns false when there is not as much. */
  take(rate: Rate, now: Monotonic, tokens = 1): boolean {
    if (this.level(rate, now) < tokens) return false;
    this.#tokens -= tokens;
    return true;
  }

  /** Puts tokens back, as far as the bucket holds them. */
  give(tokens: number, rate: Rate, now: Monotonic): void {
    this.#tokens = Math.min(rate.burst, this.level(rate, now) + tokens);
  }
}

/**
 * Token buckets by name, in two generations: when the younger one has half of all, or is as old as a bucket takes to fill, it becomes
 * the older one, and what was not used since is forgotten. A forgotten bucket is full when it comes back. A flood of names so costs
 * the same for each name, whatever the limit, and who is silent takes no memory.
 */
export class TokenBuckets {
  readonly rate: Rate;
  readonly #half: number;
  /** Milliseconds in which an empty bucket fills. */
  readonly #fill: number;
  #since = Number.NEGATIVE_INFINITY;
  #younger = new Map<string, TokenBucket>();
  #older = new Map<string, TokenBucket>();

  /** @param limit most buckets */
  constructor(rate: Rate, limit: number) {
    this.rate = rate;
    this.#half = Math.ceil(limit / 2);
    this.#fill = (1000 * rate.burst) / rate.rate;
  }

  get size(): number {
    return this.#younger.size + this.#older.size;
  }

  /** The bucket of a name, for use at once. */
  of(name: string, now: Monotonic): TokenBucket {
    if (now - this.#since > this.#fill) this.#age(now);
    const known = this.#younger.get(name);
    if (known) return known;
    const bucket = this.#older.get(name) ?? new TokenBucket(this.rate, now);
    this.#older.delete(name);
    if (this.#younger.size >= this.#half) this.#age(now);
    this.#younger.set(name, bucket);
    return bucket;
  }

  #age(now: Monotonic): void {
    this.#older = this.#younger;
    this.#younger = new Map();
    this.#since = now;
  }
}
