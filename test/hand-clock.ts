import type { Clock, Monotonic, Timer, Wall } from '../src/base/clock.ts';

interface Waiting {
  readonly at: number;
  readonly callback: () => void;
}

/** A clock for tests. Its time changes by `advance` only. */
export class HandClock implements Clock {
  #now = 1000;
  readonly #waiting = new Set<Waiting>();

  now(): Monotonic {
    return this.#now as Monotonic;
  }

  wall(): Wall {
    return (1_700_000_000_000 + this.#now) as Wall;
  }

  after(delay: number, callback: () => void): Timer {
    const entry = { at: this.#now + Math.max(0, delay), callback };
    this.#waiting.add(entry);
    return { cancel: () => this.#waiting.delete(entry) };
  }

  /** Number of timers that are set. */
  get timers(): number {
    return this.#waiting.size;
  }

  /** Moves the time forward, and runs the timers that fall due in the order of their times. */
  advance(milliseconds: number): void {
    const end = this.#now + milliseconds;
    for (;;) {
      const [next] = [...this.#waiting].filter(({ at }) => at <= end).toSorted((a, b) => a.at - b.at);
      if (!next) break;
      this.#waiting.delete(next);
      this.#now = next.at;
      next.callback();
    }
    this.#now = end;
  }
}
