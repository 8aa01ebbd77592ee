import type { Clock } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';

/** What follows an answer once the answer has gone: one piece of work at a time for each device. */
export class DeviceTasks implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #atWork = new Map<string, Promise<void>>();
  readonly #stop = new AbortController();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Ends what is under way. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  get size(): number {
    return this.#atWork.size;
  }

  has(deviceId: string): boolean {
    return this.#atWork.has(deviceId);
  }

  /** Nothing is begun for a device that something is done for already. */
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
