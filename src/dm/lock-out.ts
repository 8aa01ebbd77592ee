import { BoundedMap } from '../base/bounded-map.ts';
import { type Clock, type Monotonic, plus } from '../base/clock.ts';

/** When a lock-out begins and how long it lasts. */
export interface LockOutLimits {
  /** Failures in a row that have no consequence. */
  readonly free: number;
  /** Milliseconds of lock-out for the first failure beyond `free`. Each further failure doubles them, up to `cap`. */
  readonly first: number;
  /** Longest lock-out in milliseconds. */
  readonly cap: number;
  /** Largest number of peers that are remembered. The peer that failed longest ago is forgotten first. */
  readonly peers: number;
}

const lockOutDefaults: LockOutLimits = { free: 5, first: 5000, cap: 3_600_000, peers: 4096 };

interface Failing {
  readonly failures: number;
  readonly until: Monotonic;
}

/**
 * Locks out peers that fail to prove themselves several times in a row. The key of a peer should contain the address
 * that the failures come from. Otherwise anyone could lock out a device by failing in its name from elsewhere.
 */
export class LockOut {
  readonly #clock: Clock;
  readonly #limits: LockOutLimits;
  readonly #failing: BoundedMap<string, Failing>;

  constructor(clock: Clock, limits: LockOutLimits = lockOutDefaults) {
    this.#clock = clock;
    this.#limits = limits;
    this.#failing = new BoundedMap(limits.peers);
  }

  /** Milliseconds for which this peer is still locked out; 0 or less when it is not. */
  remaining(key: string): number {
    return (this.#failing.get(key)?.until ?? 0) - this.#clock.now();
  }

  /** Counts a failure of this peer. Returns how many there were in a row. */
  failed(key: string): number {
    const { free, first, cap } = this.#limits;
    const failures = (this.#failing.get(key)?.failures ?? 0) + 1;
    const beyond = failures - free;
    const delay = beyond <= 0 ? 0 : Math.min(cap, first * 2 ** Math.min(beyond - 1, 30));
    this.#failing.set(key, { failures, until: plus(this.#clock.now(), delay) });
    return failures;
  }

  /** Forgets the failures of this peer. */
  succeeded(key: string): void {
    this.#failing.delete(key);
  }
}
