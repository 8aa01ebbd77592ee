import { BoundedMap } from './bounded-map.ts';
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

  /** Takes one token. Returns false when there is none. */
  take(rate: Rate, now: Monotonic): boolean {
    if (this.level(rate, now) < 1) return false;
    this.#tokens--;
    return true;
  }

  /** Puts tokens back, as far as the bucket holds them. */
  give(tokens: number, rate: Rate, now: Monotonic): void {
    this.#tokens = Math.min(rate.burst, this.level(rate, now) + tokens);
  }
}

/** Token buckets by name. At the bound the bucket that was used longest ago is forgotten. It is full when it comes back. */
export class TokenBuckets {
  readonly rate: Rate;
  readonly #buckets: BoundedMap<string, TokenBucket>;

  constructor(rate: Rate, limit: number) {
    this.rate = rate;
    this.#buckets = new BoundedMap(limit);
  }

  get size(): number {
    return this.#buckets.size;
  }

  /** The bucket of a name. It is valid until the bound is reached. */
  of(name: string, now: Monotonic): TokenBucket {
    const bucket = this.#buckets.get(name) ?? new TokenBucket(this.rate, now);
    this.#buckets.set(name, bucket);
    return bucket;
  }
}
