import { guarded } from '../../base/background.ts';
import type { Events } from '../../base/events.ts';

/**
 * Bounds how many units of work begin in one turn of the event loop. Datagrams that arrive meanwhile are served between the
 * turns, and not after the last unit.
 */
export class FewPerTurn {
  readonly #most: number;
  readonly #next: () => void;
  #left: number;
  #isCounting = false;

  /** @param next called in the turn after one in which a unit began or had no place */
  constructor(events: Events, most: number, next: () => void) {
    this.#most = most;
    this.#left = most;
    this.#next = guarded(events, 'campaign', () => {
      this.#isCounting = false;
      this.#left = this.#most;
      next();
    });
  }

  /** Whether one more unit may begin in this turn. */
  take(): boolean {
    if (!this.#isCounting) {
      this.#isCounting = true;
      setImmediate(this.#next);
    }
    if (this.#left === 0) return false;
    this.#left--;
    return true;
  }
}
