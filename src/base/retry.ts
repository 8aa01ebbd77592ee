import type { Entropy } from './entropy.ts';

export interface Backoff {
  /** First delay in milliseconds. */
  readonly first: number;
  /** No delay's centre passes this. */
  readonly cap: number;
  /** Each delay is spread by this fraction up and down, so that a thousand gateways do not come back at once. */
  readonly jitter: number;
}

/** Delays in milliseconds, doubling up to the cap, without end. The jitter comes after the cap, so it works there too. */
export function* backoff({ first, cap, jitter }: Backoff, entropy: Entropy): Generator<number, never> {
  for (let centre = first; ; centre = Math.min(cap, centre * 2)) {
    yield Math.round(Math.min(centre, cap) * (1 + jitter * (2 * entropy.uniform() - 1)));
  }
}
