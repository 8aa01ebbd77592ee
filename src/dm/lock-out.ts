import { BoundedMap } from '../base/bounded-map.ts';
import { type Clock, type Monotonic, plus } from '../base/clock.ts';
import { PosternError } from '../base/errors.ts';

export interface LockOutLimits {
  /** Failed sessions in a row that are free. */
  readonly free: number;
  /** Milliseconds that the first one beyond costs; each further one doubles it, up to the cap. */
  readonly first: number;
  readonly cap: number;
  /** Peers remembered; the one that failed longest ago is forgotten first. */
  readonly peers: number;
}

const lockOutDefaults: LockOutLimits = { free: 5, first: 5000, cap: 3_600_000, peers: 4096 };

interface Failing {
  readonly failures: number;
  readonly until: Monotonic;
}

/**
 * Keeps away who failed to prove itself again and again. The key should name where the failures come from as well, so
 * that nobody can lock out a device by failing in its name from elsewhere.
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

  /** @throws {PosternError} `lockedOut` while this peer has to wait */
  check(key: string): void {
    const wait = (this.#failing.get(key)?.until ?? 0) - this.#clock.now();
    if (wait > 0)
      throw new PosternError('lockedOut', `too many failed proofs; again in ${Math.ceil(wait / 1000)} s`);
  }

  failed(key: string): void {
    const { free, first, cap } = this.#limits;
    const failures = (this.#failing.get(key)?.failures ?? 0) + 1;
    const beyond = failures - free;
    const delay = beyond <= 0 ? 0 : Math.min(cap, first * 2 ** Math.min(beyond - 1, 30));
    this.#failing.set(key, { failures, until: plus(this.#clock.now(), delay) });
  }

  succeeded(key: string): void {
    this.#failing.delete(key);
  }
}
