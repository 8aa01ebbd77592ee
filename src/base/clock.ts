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

/** The machine's own clock. A timer that has not fired keeps the process alive. */
export class SystemClock implements Clock {
  readonly #failed: ((thrown: unknown) => void) | undefined;

  /** @param failed gets what the callback of a timer throws; without it, the process ends */
  constructor(failed?: (thrown: unknown) => void) {
    this.#failed = failed;
  }

  now(): Monotonic {
    return performance.now() as Monotonic;
  }

  wall(): Wall {
    return Date.now() as Wall;
  }

  after(delay: number, callback: () => void): Timer {
    const handle = setTimeout(() => this.#run(callback), Math.max(0, delay));
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
