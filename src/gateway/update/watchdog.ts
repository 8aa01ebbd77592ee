import { closeSync, openSync, writeSync } from 'node:fs';
import { type Clock, pause } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { HealthCheck } from './health.ts';

export interface WatchdogParts {
  /** Of the kernel, such as `/dev/watchdog`. */
  readonly device: string;
  /** What must hold for it to be fed: the real function, which also shows that the event loop turns. */
  readonly check: HealthCheck;
  readonly clock: Clock;
  readonly events: Events;
}

/** Milliseconds between feedings; the hardware waits for longer. */
const interval = 5000;
/** Closing after this letter disarms it, where the hardware can be disarmed. */
const disarm = 'V';

/** Feeds the board's watchdog for as long as the gateway does its work: when it does not, the board starts again. */
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

  /** A gateway that is told to end disarms it; one that dies does not. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    if (this.#file === undefined) return;
    writeSync(this.#file, disarm);
    closeSync(this.#file);
    this.#file = undefined;
  }

  async #feed(file: number): Promise<void> {
    const { check, clock, events } = this.#parts;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const complaint = await check();
      if (complaint === undefined) writeSync(file, '\0');
      else events.emit('watchdog.hungry', { reason: complaint });
      await pause(clock, interval, signal).catch(() => {});
    }
  }
}
