import type { Clock, Monotonic, Timer, Wall } from '../src/base/clock.ts';

interface Waiting {
  readonly at: number;
  readonly callback: () => void;
  handle: NodeJS.Timeout | undefined;
}

/**
 * The machine's clock, which a test can put forward. What is due then happens at once. Parties on real sockets keep running
 * with it, and nobody waits for hours.
 */
export class LeapClock implements Clock {
  readonly #rate: number;
  #ahead = 0;
  #wallAhead = 0;
  readonly #waiting = new Set<Waiting>();
  readonly #fired: () => void;

  /**
   * @param rate how many times faster than the machine's the clock runs
   * @param fired called after each timer
   */
  constructor(rate = 1, fired: () => void = () => {}) {
    this.#rate = rate;
    this.#fired = fired;
  }

  now(): Monotonic {
    return (performance.now() * this.#rate + this.#ahead) as Monotonic;
  }

  wall(): Wall {
    const faster = performance.now() * (this.#rate - 1);
    return (Date.now() + faster + this.#ahead + this.#wallAhead) as Wall;
  }

  after(delay: number, callback: () => void): Timer {
    const entry: Waiting = { at: this.now() + Math.max(0, delay), callback, handle: undefined };
    this.#waiting.add(entry);
    this.#arm(entry);
    return { cancel: () => this.#drop(entry) };
  }

  /** Puts the clock forward. Resolves when what was due has begun. */
  async leap(milliseconds: number): Promise<void> {
    this.#ahead += milliseconds;
    for (const entry of [...this.#waiting].toSorted((a, b) => a.at - b.at)) {
      if (!this.#waiting.has(entry)) continue;
      if (entry.at <= this.now()) this.#fire(entry);
      else this.#arm(entry);
    }
    for (let turns = 0; turns < 4; turns++) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Moves the wall clock alone, as a time server or a person does. Nothing is due by that. */
  moveWall(milliseconds: number): void {
    this.#wallAhead += milliseconds;
  }

  /** Drops all timers: what they belong to is gone. */
  stop(): void {
    for (const entry of [...this.#waiting]) this.#drop(entry);
  }

  #arm(entry: Waiting): void {
    clearTimeout(entry.handle);
    const left = Math.min(Math.max(0, entry.at - this.now()) / this.#rate, 2 ** 31 - 1);
    entry.handle = setTimeout(
      () => (entry.at <= this.now() + 1 ? this.#fire(entry) : this.#arm(entry)),
      left,
    );
  }

  #fire(entry: Waiting): void {
    this.#drop(entry);
    entry.callback();
    this.#fired();
  }

  #drop(entry: Waiting): void {
    clearTimeout(entry.handle);
    this.#waiting.delete(entry);
  }
}
