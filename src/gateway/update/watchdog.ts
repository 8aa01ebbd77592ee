import { closeSync, openSync, writeSync } from 'node:fs';
import { background } from '../../base/background.ts';
import { type Clock, pause } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { feedVariable } from './directory-slots.ts';
import type { HealthCheck } from './health.ts';

export interface WatchdogParts {
  /**
   * Watchdog device of the kernel, such as `/dev/watchdog`; or an open file descriptor, by which the launcher is fed; or a function
   * that feeds.
   */
  readonly device: string | number | (() => Promise<void>);
  /** Must succeed before each feeding. It exercises the gateway's real work, and shows that the event loop runs. */
  readonly check: HealthCheck;
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * The watchdogs that a gateway feeds: that of the machine, if the configuration names it, and the launcher that has started it.
 * @param device `update.watchdog`
 */
export function watchdogsOf(device: string | undefined, parts: Omit<WatchdogParts, 'device'>): Watchdog[] {
  const launcher = process.env[feedVariable];
  return [device, launcher === undefined ? undefined : Number(launcher)]
    .filter((one) => one !== undefined)
    .map((one) => new Watchdog({ ...parts, device: one }));
}

/** Milliseconds between feedings. The watchdog's own timeout is longer. */
const interval = 5000;

/**
 * Feeds the board's watchdog while the gateway works. When it does not work, the watchdog restarts the board. It is never
 * disarmed, so a stop that hangs is covered too.
 */
export class Watchdog implements AsyncDisposable {
  readonly #parts: WatchdogParts;
  readonly #stop = new AbortController();
  #file: number | undefined;
  #running: Promise<void> | undefined;

  constructor(parts: WatchdogParts) {
    this.#parts = parts;
  }

  /** @throws {PosternError} `configuration` when the device cannot be opened */
  start(): void {
    const { device } = this.#parts;
    let feed = device;
    if (typeof feed !== 'function') {
      try {
        this.#file = typeof feed === 'number' ? feed : openSync(feed, 'w');
      } catch (cause) {
        throw new PosternError('configuration', `update.watchdog: ${device} cannot be opened`, { cause });
      }
      const file = this.#file;
      feed = async () => {
        writeSync(file, '\0');
      };
    }
    this.#running = this.#feed(feed);
  }

  /** Stops to feed. The watchdog stays armed, and whoever stops the gateway for good must feed it or restart the machine. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    // A file descriptor that was given is not closed: whoever comes next feeds by it.
    if (this.#file !== undefined && this.#file !== this.#parts.device) closeSync(this.#file);
    this.#file = undefined;
  }

  /** Never rejects. A check or a feeding that throws is a complaint like others. */
  async #feed(feed: () => Promise<void>): Promise<void> {
    const { clock, events } = this.#parts;
    const { signal } = this.#stop;
    let last: string | undefined;
    while (!signal.aborted) {
      await background(events, 'watchdog', async () => {
        const complaint = await this.#feedOnce(feed);
        if (complaint !== undefined && complaint !== last)
          events.emit('watchdog.hungry', { reason: complaint });
        last = complaint;
      });
      await pause(clock, interval, signal).catch(() => {});
    }
  }

  async #feedOnce(feed: () => Promise<void>): Promise<string | undefined> {
    const complaint = await this.#parts.check();
    if (complaint === undefined) await feed();
    return complaint;
  }
}
