import type { Clock } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';

/**
 * Runs work that must follow the answer to a device, after that answer was sent. At most one task per device at a time.
 */
export class DeviceTasks implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #atWork = new Map<string, Promise<void>>();
  readonly #stop = new AbortController();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Aborted when the gateway stops; tasks end on it. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get size(): number {
    return this.#atWork.size;
  }

  has(deviceId: string): boolean {
    return this.#atWork.has(deviceId);
  }

  /** Starts a task after the current answer was sent. Does nothing while another task for the device runs. */
  begin(deviceId: string, work: () => Promise<void>): void {
    if (this.#atWork.has(deviceId)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#atWork.set(deviceId, promise);
    this.#clock.after(0, () => {
      void work().finally(() => {
        this.#atWork.delete(deviceId);
        resolve();
      });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await Promise.all(this.#atWork.values());
  }
}
