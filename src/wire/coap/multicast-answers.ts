import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';

interface Waiting {
  readonly timer: Timer;
  readonly send: () => void;
}

/**
 * The responses to multicast requests, which go out at a random time within the leisure (RFC 7252 section 8.2). At the bound the
 * response that has waited longest goes out at once, so none is lost. The leisure spreads the answers of many servers; how
 * many wait at this one makes no difference to it.
 */
export class MulticastAnswers {
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  readonly #leisure: number;
  readonly #limit: number;
  readonly #waiting = new Map<string, Waiting>();

  /**
   * @param leisure in milliseconds
   * @param limit most responses that wait
   */
  constructor(clock: Clock, entropy: Entropy, leisure: number, limit: number) {
    this.#clock = clock;
    this.#entropy = entropy;
    this.#leisure = leisure;
    this.#limit = limit;
  }

  get size(): number {
    return this.#waiting.size;
  }

  /** Whether a response to the request with this key waits, so that the request is a repetition. */
  has(key: string): boolean {
    return this.#waiting.has(key);
  }

  /** Calls `send` at a random time within the leisure. */
  later(key: string, send: () => void): void {
    if (this.#waiting.size >= this.#limit) {
      const [oldest] = this.#waiting;
      if (oldest) this.#release(oldest[0]);
    }
    const timer = this.#clock.after(this.#entropy.uniform() * this.#leisure, () => this.#release(key));
    this.#waiting.set(key, { timer, send });
  }

  /** Drops all responses. */
  stop(): void {
    for (const { timer } of this.#waiting.values()) timer.cancel();
    this.#waiting.clear();
  }

  #release(key: string): void {
    const waiting = this.#waiting.get(key);
    if (!waiting) return;
    this.#waiting.delete(key);
    waiting.timer.cancel();
    waiting.send();
  }
}
