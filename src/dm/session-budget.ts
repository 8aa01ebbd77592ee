import type { Clock, Monotonic } from '../base/clock.ts';

/** Bounds in bytes of all sessions of a table together. */
export interface ByteLimits {
  /** Bytes that each session may hold, whatever the others hold. */
  readonly share: number;
  /** Bytes that all sessions together may hold beyond their shares. */
  readonly pool: number;
  /** Milliseconds after which a session that still holds bytes of the pool gives way to another one that needs them. */
  readonly keep: number;
}

/** What the budget knows of a session. */
export interface Holder {
  /** Bytes of the pool that it holds. */
  pooled: number;
  /** Since when it has held some without a break. */
  pooledSince: Monotonic | undefined;
}

/** A session with more than this part of the pool gives way to a smaller one. */
const largePart = 1 / 8;

/**
 * The bytes of all sessions of a table. A session with no more than its share is never refused because of others. What is
 * beyond the shares comes from one pool. When the pool is empty, sessions give way in this order: those that are over or
 * silent; those that have held bytes of it for long; the largest one, if it has more than an eighth of the pool and the one that
 * needs bytes does not. Larger ones go first. Where none gives way, the session that needs bytes has to wait: it is never
 * decided that somebody else is too large.
 */
export class SessionBudget<H extends Holder> {
  readonly #clock: Clock;
  readonly #limits: ByteLimits;
  /** Those that hold bytes of the pool. */
  readonly #holders = new Set<H>();
  #used = 0;

  constructor(clock: Clock, limits: ByteLimits) {
    this.#clock = clock;
    this.#limits = limits;
  }

  /** Bytes of the pool that are in use. */
  get used(): number {
    return this.#used;
  }

  /** Counts that a session holds this many bytes now. */
  count(holder: H, bytes: number): void {
    const pooled = Math.max(0, bytes - this.#limits.share);
    this.#used += pooled - holder.pooled;
    holder.pooled = pooled;
    if (pooled === 0) {
      holder.pooledSince = undefined;
      this.#holders.delete(holder);
    } else {
      holder.pooledSince ??= this.#clock.now();
      this.#holders.add(holder);
    }
  }

  /**
   * The sessions that have to end so that `holder` may hold `bytes`. Undefined when there is no room even then.
   * @param isOver whether a session has ended, or was silent for a while
   */
  roomFor(holder: H, bytes: number, isOver: (other: H) => boolean): H[] | undefined {
    const { pool, share, keep } = this.#limits;
    const wanted = Math.max(0, bytes - share);
    let missing = this.#used - holder.pooled + wanted - pool;
    if (wanted === 0 || missing <= 0) return [];
    const now = this.#clock.now();
    const large = pool * largePart;
    const rankOf = (other: H) =>
      isOver(other)
        ? 0
        : now - (other.pooledSince ?? now) >= keep
          ? 1
          : other.pooled > large && wanted <= large
            ? 2
            : 3;
    const giving: H[] = [];
    const others = [...this.#holders].filter((other) => other !== holder);
    for (const { other } of others
      .map((other) => ({ other, rank: rankOf(other) }))
      .filter(({ rank }) => rank < 3)
      .toSorted((a, b) => a.rank - b.rank || b.other.pooled - a.other.pooled)) {
      giving.push(other);
      missing -= other.pooled;
      if (missing <= 0) return giving;
    }
    return undefined;
  }
}
