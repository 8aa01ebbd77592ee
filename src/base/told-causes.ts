import { BoundedMap } from './bounded-map.ts';
import type { Clock, Monotonic } from './clock.ts';

/** When a cause is told again, in milliseconds, and how many causes are remembered. */
export interface ToldCausesLimits {
  readonly period: number;
  readonly causes: number;
}

/**
 * Counts by cause what anyone may let happen again and again, and decides when a cause is told: the first time at once, then
 * at most once in a period. At the bound the cause that came longest ago is forgotten. It is told at once when it comes back.
 */
export class ToldCauses {
  readonly #clock: Pick<Clock, 'now'>;
  readonly #period: number;
  readonly #causes: BoundedMap<string, { untold: number; toldAt: Monotonic | undefined }>;

  constructor({ period, causes }: ToldCausesLimits, clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
    this.#period = period;
    this.#causes = new BoundedMap(causes);
  }

  /** Counts a cause once. Returns how often it came since it was last told when it is to be told now, else undefined. */
  count(cause: string): number | undefined {
    const now = this.#clock.now();
    const known = this.#causes.get(cause) ?? { untold: 0, toldAt: undefined };
    this.#causes.set(cause, known);
    known.untold++;
    if (known.toldAt !== undefined && now - known.toldAt < this.#period) return undefined;
    const { untold } = known;
    known.untold = 0;
    known.toldAt = now;
    return untold;
  }
}
