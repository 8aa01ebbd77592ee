/** Milliseconds of a clock that never jumps. Only the difference of two values has a meaning. */
export type Monotonic = number & { readonly unit: 'monotonic ms' };
/** Milliseconds since 1970 by the machine's clock. It may be wrong after boot, so no decision depends on it. */
export type Wall = number & { readonly unit: 'wall ms' };

export interface Timer {
  cancel(): void;
}

/** The only source of time. Tests replace it by a clock that they move by hand. */
export interface Clock {
  now(): Monotonic;
  wall(): Wall;
  /** Calls `callback` once, `delay` milliseconds from now. */
  after(delay: number, callback: () => void): Timer;
}

/** Longest delay of one timer of Node in milliseconds, about 24.8 days. Node fires a longer one at once. */
const longestTimer = 2 ** 31 - 1;

/**
 * The machine's own clock. A timer that has not fired keeps the process alive. A delay may have any length: a long one is
 * waited for in several parts.
 */
export class SystemClock implements Clock {
  readonly #failed: ((thrown: unknown) => void) | undefined;
  readonly #longest: number;
  /** Kept here, because Node's global is a getter, which takes longer than the clock itself. */
  readonly #performance = performance;

  /**
   * @param failed gets what the callback of a timer throws; without it, the process ends
   * @param longest longest delay of one part in milliseconds; smaller values are for tests
   */
  constructor(failed?: (thrown: unknown) => void, longest = longestTimer) {
    this.#failed = failed;
    this.#longest = longest;
  }

  now(): Monotonic {
    return this.#performance.now() as Monotonic;
  }

  wall(): Wall {
    return Date.now() as Wall;
  }

  after(delay: number, callback: () => void): Timer {
    const due = this.now() + delay;
    const arm = (rest: number): NodeJS.Timeout =>
      rest > this.#longest
        ? setTimeout(() => {
            handle = arm(due - this.now());
          }, this.#longest)
        : // Node cuts off fractions, so without this a timer would fire up to two milliseconds early.
          setTimeout(() => this.#run(callback), Math.max(0, Math.ceil(rest)));
    let handle = arm(delay);
    return { cancel: () => clearTimeout(handle) };
  }

  #run(callback: () => void): void {
    try {
      callback();
    } catch (thrown) {
      if (!this.#failed) throw thrown;
      this.#failed(thrown);
    }
  }
}

/** The time `milliseconds` after `time`. */
export const plus = (time: Monotonic, milliseconds: number): Monotonic => (time + milliseconds) as Monotonic;

/** Resolves after `delay` milliseconds. Rejects with the signal's reason when the signal is aborted first. */
export function pause(clock: Clock, delay: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.after(delay, () => {
      signal?.removeEventListener('abort', stop);
      resolve();
    });
    signal?.addEventListener('abort', stop, { once: true });
  });
}
