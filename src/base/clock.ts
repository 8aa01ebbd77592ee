/** Milliseconds of a clock that never jumps; only differences mean anything. */
export type Monotonic = number & { readonly unit: 'monotonic ms' };
/** Milliseconds since 1970 as the machine believes; may be wrong after boot, so nothing is decided by it. */
export type Wall = number & { readonly unit: 'wall ms' };

export interface Timer {
  cancel(): void;
}

/** The only source of time. Tests bring a clock that they move by hand. */
export interface Clock {
  now(): Monotonic;
  wall(): Wall;
  /** Calls back once, `delay` milliseconds from now. */
  after(delay: number, callback: () => void): Timer;
}

/** The machine's own clock. Its timers keep the process alive only when `ref` is true. */
export class SystemClock implements Clock {
  now(): Monotonic {
    return performance.now() as Monotonic;
  }

  wall(): Wall {
    return Date.now() as Wall;
  }

  after(delay: number, callback: () => void): Timer {
    const handle = setTimeout(callback, Math.max(0, delay));
    return { cancel: () => clearTimeout(handle) };
  }
}

export const plus = (time: Monotonic, milliseconds: number): Monotonic => (time + milliseconds) as Monotonic;

/** Resolves after `delay`, or rejects with the signal's reason when it is aborted first. */
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
