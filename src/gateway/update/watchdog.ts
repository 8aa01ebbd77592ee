import { closeSync, openSync, writeSync } from 'node:fs';
import { background } from '../../base/background.ts';
import { type Clock, pause } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { HealthCheck } from './health.ts';

export interface WatchdogParts {
  /** Watchdog device of the kernel, such as `/dev/watchdog`. */
  readonly device: string;
  /** Must succeed before each feeding. It exercises the gateway's real work, and shows that the event loop runs. */
  readonly check: HealthCheck;
  readonly clock: Clock;
  readonly events: Events;
}

/** Milliseconds between feedings. The watchdog's own timeout is longer. */
const interval = 5000;
/** When this letter is written before closing, the watchdog is disarmed, if the hardware allows that. */
const disarm = 'V';

/** Feeds the board's watchdog while the gateway works. When it does not work, the watchdog restarts the board. */
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
    try {
      this.#file = openSync(device, 'w');
    } catch (cause) {
      throw new PosternError('configuration', `update.watchdog: ${device} cannot be opened`, { cause });
    }
    this.#running = this.#feed(this.#file);
  }

  /** Disarms the watchdog. A gateway that is killed does not get here, so the board restarts. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    if (this.#file === undefined) return;
    const file = this.#file;
    this.#file = undefined;
    try {
      writeSync(file, disarm);
    } catch (thrown) {
      this.#parts.events.emit('watchdog.hungry', { reason: asPosternError(thrown).message });
    }
    closeSync(file);
  }

  /** Never rejects. A check or a feeding that throws is a complaint like others. */
  async #feed(file: number): Promise<void> {
    const { clock, events } = this.#parts;
    const { signal } = this.#stop;
    let last: string | undefined;
    while (!signal.aborted) {
      await background(events, 'watchdog', async () => {
        const complaint = await this.#feedOnce(file);
        if (complaint !== undefined && complaint !== last)
          events.emit('watchdog.hungry', { reason: complaint });
        last = complaint;
      });
      await pause(clock, interval, signal).catch(() => {});
    }
  }

  async #feedOnce(file: number): Promise<string | undefined> {
    const complaint = await this.#parts.check();
    if (complaint === undefined) writeSync(file, '\0');
    return complaint;
  }
}
