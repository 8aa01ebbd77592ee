import type { Clock } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { Jobs } from '../../dm/jobs.ts';
import type { Operation, OperationOutcome, Work } from '../../dm/server-session.ts';

export interface ManageOptions {
  /** Milliseconds until the session must have begun. */
  readonly timeout: number;
  /** Hears that it has, and that something may have been done from then on. */
  readonly begun?: () => void;
  /** Gives it up. */
  readonly signal?: AbortSignal;
}

/** Does operations on a device, whatever it speaks. */
export type Manage = (
  deviceId: string,
  operations: readonly Operation[],
  options: ManageOptions,
) => Promise<readonly OperationOutcome[]>;

/** Work for devices that waits until there is a session with them, and is given up when none begins in time. */
export class WaitingWork {
  readonly #clock: Clock;
  readonly #jobs = new Jobs();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** What waits for a device, for the session that it has opened. */
  of(deviceId: string): Work {
    return this.#jobs.work(deviceId);
  }

  has(deviceId: string): boolean {
    return this.#jobs.count(deviceId) > 0;
  }

  /** A device is attached here no more: what waits for it is not done. */
  detached(deviceId: string): void {
    this.#jobs.reject(deviceId, new PosternError('notFound', `${deviceId} was detached`));
  }

  /**
   * Does operations in the next session with a device.
   * @param ask asks for the session, and fails when that is in vain
   * @throws {PosternError} `timeout`, `full`, why it could not be asked for, or why the session failed
   */
  async perform(
    deviceId: string,
    operations: readonly Operation[],
    { timeout, begun, signal }: ManageOptions,
    ask: () => Promise<void>,
  ): Promise<readonly OperationOutcome[]> {
    const giveUp = new AbortController();
    const timer = this.#clock.after(timeout, () =>
      giveUp.abort(new PosternError('timeout', `no session with ${deviceId} began in ${timeout} ms`)),
    );
    try {
      let outcomes: readonly OperationOutcome[] = [];
      const done = this.#jobs.perform(
        deviceId,
        async function* () {
          timer.cancel();
          begun?.();
          outcomes = yield operations;
        },
        signal ? AbortSignal.any([giveUp.signal, signal]) : giveUp.signal,
      );
      ask().catch((thrown) => giveUp.abort(asPosternError(thrown)));
      await done;
      return outcomes;
    } finally {
      timer.cancel();
    }
  }
}
