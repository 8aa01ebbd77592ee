import type { Clock, Timer } from '../../../base/clock.ts';

/** Milliseconds of one slot. What is scheduled fires at the end of its slot. */
const slot = 100;

/**
 * Timers of many handshakes that share one timer of the clock. Nothing is set while nothing is scheduled. Adding and cancelling
 * cost the same however many there are.
 */
export class TimerWheel {
  readonly #clock: Clock;
  /** By number of slot since the clock's zero. */
  readonly #slots = new Map<number, Set<() => void>>();
  #timer: Timer | undefined;
  #current = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls `callback` once, `delay` milliseconds from now, or up to a slot later. */
  after(delay: number, callback: () => void): Timer {
    const now = Math.floor(this.#clock.now() / slot);
    if (this.#slots.size === 0) this.#current = now;
    const due = now + Math.max(1, Math.ceil(delay / slot) + 1);
    const entry = () => callback();
    const entries = this.#slots.get(due);
    if (entries) entries.add(entry);
    else this.#slots.set(due, new Set([entry]));
    this.#arm();
    return {
      cancel: () => {
        const there = this.#slots.get(due);
        if (there?.delete(entry) && there.size === 0) this.#slots.delete(due);
      },
    };
  }

  /** Forgets all that is scheduled. */
  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#slots.clear();
  }

  #arm(): void {
    this.#timer ??= this.#clock.after(slot, () => this.#turn());
  }

  #turn(): void {
    this.#timer = undefined;
    const now = Math.floor(this.#clock.now() / slot);
    // After a long sleep of the machine it is shorter to look at the slots that there are.
    const due =
      now - this.#current > this.#slots.size
        ? [...this.#slots.keys()].filter((each) => each <= now).toSorted((a, b) => a - b)
        : Array.from({ length: now - this.#current }, (_, ahead) => this.#current + 1 + ahead);
    this.#current = now;
    try {
      for (const each of due) {
        const entries = this.#slots.get(each);
        this.#slots.delete(each);
        for (const entry of entries ?? []) {
          entries!.delete(entry);
          entry();
        }
      }
    } finally {
      if (this.#slots.size > 0) this.#arm();
    }
  }
}
