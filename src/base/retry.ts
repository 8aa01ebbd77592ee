import type { Entropy } from './entropy.ts';

/** How the delays between attempts grow. */
export interface Backoff {
  /** First delay in milliseconds. */
  readonly first: number;
  /** Largest delay in milliseconds, before jitter. */
  readonly cap: number;
  /**
   * Fraction from 0 to 1 by which each delay varies at random, up and down. It keeps a thousand gateways from
   * reconnecting at the same moment.
   */
  readonly jitter: number;
}

/**
 * Delays in milliseconds without end, doubling up to the cap. Jitter is added after the cap, so it works there as well:
 * a delay may exceed the cap by the jitter.
 */
export function* backoff({ first, cap, jitter }: Backoff, entropy: Entropy): Generator<number, never> {
  for (let centre = first; ; centre = Math.min(cap, centre * 2)) {
    yield Math.round(Math.min(centre, cap) * (1 + jitter * (2 * entropy.uniform() - 1)));
  }
}
