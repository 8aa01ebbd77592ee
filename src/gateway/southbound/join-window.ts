import type { Clock, Monotonic, Timer, Wall } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';

/** Most minutes and devices of one window. */
export const joinLimits = { minutes: 60, devices: 64 } as const;

/** Milliseconds by which the machine's clock may be set while a window is open. */
const clockTolerance = 30_000;

/** Why a window has ended. */
export type WindowEnd =
  | 'time is over'
  | 'all places are taken'
  | 'closed by hand'
  | 'the clock was set'
  | 'the gateway stops';

/** A window as people and DM servers ask for it. */
export interface WindowRequest {
  readonly minutes: number;
  readonly devices: number;
}

interface OpenWindow {
  /** Places that are left. */
  readonly left: number;
  readonly ends: Monotonic;
  readonly opened: { readonly monotonic: Monotonic; readonly wall: Wall };
  readonly timer: Timer;
  readonly joined: readonly string[];
}

/**
 * Time in which devices that nobody has listed may join: some minutes, and some devices. It is in memory alone, so a restart closes
 * it: somebody who decided to open it is to decide again. It is over when the machine's clock was set by more than half a minute
 * against the clock that never jumps: then a suspended machine slept through it, or its end is not when people were told.
 */
export class JoinWindow {
  readonly #clock: Clock;
  readonly #closed: (end: WindowEnd, joined: readonly string[]) => void;
  #window: OpenWindow | undefined;

  /** @param closed called once when a window has ended, with the devices that joined */
  constructor(clock: Clock, closed: (end: WindowEnd, joined: readonly string[]) => void) {
    this.#clock = clock;
    this.#closed = closed;
  }

  /**
   * Opens the window. A window that is open is replaced.
   * @throws {PosternError} `malformed` beyond `joinLimits`
   */
  open({ minutes, devices }: WindowRequest): void {
    for (const [name, value] of Object.entries({ minutes, devices }) as ['minutes' | 'devices', number][])
      if (!Number.isInteger(value) || value < 1 || value > joinLimits[name])
        throw new PosternError('malformed', `${name} is a whole number of 1 to ${joinLimits[name]}`);
    this.#window?.timer.cancel();
    const opened = { monotonic: this.#clock.now(), wall: this.#clock.wall() };
    const length = minutes * 60_000;
    this.#window = {
      left: devices,
      ends: (opened.monotonic + length) as Monotonic,
      opened,
      timer: this.#clock.after(length, () => this.close('time is over')),
      joined: [],
    };
  }

  get isOpen(): boolean {
    return this.#now() !== undefined;
  }

  /** Places that are left, the end by the machine's clock, and who has joined. Undefined while it is closed. */
  get view():
    | { readonly left: number; readonly until: string; readonly joined: readonly string[] }
    | undefined {
    const window = this.#now();
    if (!window) return undefined;
    const until = new Date(this.#clock.wall() + window.ends - this.#clock.now()).toISOString();
    return { left: window.left, until, joined: window.joined };
  }

  /** Notes that a device has joined. The last one closes the window. */
  took(deviceId: string): void {
    const window = this.#window;
    if (!window) return;
    this.#window = { ...window, left: window.left - 1, joined: [...window.joined, deviceId] };
    if (window.left <= 1) this.close('all places are taken');
  }

  close(end: WindowEnd): void {
    const window = this.#window;
    if (!window) return;
    window.timer.cancel();
    this.#window = undefined;
    this.#closed(end, window.joined);
  }

  /** The window, if it has not ended by now. */
  #now(): OpenWindow | undefined {
    const window = this.#window;
    if (!window) return undefined;
    const passed = this.#clock.now() - window.opened.monotonic;
    const shown = this.#clock.wall() - window.opened.wall;
    // The timer may be late.
    if (this.#clock.now() >= window.ends) this.close('time is over');
    else if (Math.abs(shown - passed) > clockTolerance) this.close('the clock was set');
    return this.#window;
  }
}
