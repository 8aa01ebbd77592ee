import { type BackgroundWork, background } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';

/**
 * Runs work that must follow the answer to a device, after that answer was sent. At most one task per device at a time.
 */
export class DeviceTasks implements AsyncDisposable {
  readonly #kind: BackgroundWork;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #atWork = new Map<string, Promise<void>>();
  readonly #stop = new AbortController();

  /** @param kind what the tasks are, for their errors */
  constructor(kind: BackgroundWork, { clock, events }: { readonly clock: Clock; readonly events: Events }) {
    this.#kind = kind;
    this.#clock = clock;
    this.#events = events;
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
    this.#clock.after(0, async () => {
      await background(this.#events, this.#kind, work, this.signal);
      this.#atWork.delete(deviceId);
      resolve();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await Promise.all(this.#atWork.values());
  }
}
