import type { Clock } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { Jobs } from '../../dm/jobs.ts';
import { hasExec, type Operation, type OperationOutcome, type Work } from '../../dm/server-session.ts';

export interface ManageOptions {
  /** Milliseconds within which the session must begin. */
  readonly timeout: number;
  /** Called when the session begins. From then on, operations may have reached the device. */
  readonly begun?: () => void;
  /** Gives up the work, with the signal's reason. */
  readonly signal?: AbortSignal;
  /**
   * Aborted when the order's deadline has come. Work that waits is given up, with the signal's reason. Of work that has begun on
   * an LwM2M client, the commands without an answer get 408. A session with an OMA DM device goes on to its end.
   */
  readonly until?: AbortSignal;
  /** Milliseconds to wait for a client in queue mode that sleeps. `timeout` if absent. */
  readonly patience?: number;
  /**
   * Called when the device cannot be asked for a session, or does not answer. The work then waits for a session that the
   * device opens itself. Without it, a device that does not answer ends the work at once.
   */
  readonly away?: () => void;
}

/** Performs operations on a device. Returns their outcomes in the same order. */
export type Manage = (
  deviceId: string,
  operations: readonly Operation[],
  options: ManageOptions,
) => Promise<readonly OperationOutcome[]>;

/** Operations that wait for a session with their device. They fail when no session begins in time. */
export class WaitingWork {
  readonly #clock: Clock;
  readonly #jobs = new Jobs();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** All waiting operations of a device, to be run in a session that has begun. */
  of(deviceId: string): Work {
    return this.#jobs.work(deviceId);
  }

  /**
   * Those that may begin before the device has answered in its session. An Exec must not: it cannot be repeated, so it would be
   * lost whenever that first package is.
   */
  early(deviceId: string): Work {
    return this.#jobs.early(deviceId);
  }

  /** Whether operations wait for a device. */
  has(deviceId: string): boolean {
    return this.#jobs.count(deviceId) > 0;
  }

  /** To be called when a device is no longer attached. Waiting operations fail with `notFound`. */
  detached(deviceId: string): void {
    this.#jobs.reject(deviceId, new PosternError('notFound', `${deviceId} was detached`));
  }

  /**
   * Performs operations in the next session with a device.
   * @param ask requests the session; rejects when there can be none
   * @throws {PosternError} `timeout` when no session began in time, `full`, the error of `ask`, or the error of the
   * session
   */
  async perform(
    deviceId: string,
    operations: readonly Operation[],
    { timeout, begun, signal, until, away }: ManageOptions,
    ask: () => Promise<void>,
  ): Promise<readonly OperationOutcome[]> {
    const giveUp = new AbortController();
    const timer = this.#clock.after(timeout, () =>
      giveUp.abort(new PosternError('timeout', `no session with ${deviceId} began in ${timeout} ms`)),
    );
    // Not AbortSignal.any: such a signal costs as much as a package, and there is one for each device of a fan-out.
    const stop = () => giveUp.abort((signal?.aborted ? signal : until)?.reason);
    for (const each of [signal, until]) {
      each?.addEventListener('abort', stop);
      if (each?.aborted) stop();
    }
    try {
      let outcomes: readonly OperationOutcome[] = [];
      const done = this.#jobs.perform(
        deviceId,
        async function* () {
          timer.cancel();
          until?.removeEventListener('abort', stop);
          begun?.();
          outcomes = yield operations;
        },
        giveUp.signal,
        hasExec(operations),
      );
      ask().catch((thrown) => {
        const reason = asPosternError(thrown);
        if (away && reason.code === 'timeout') away();
        else giveUp.abort(reason);
      });
      await done;
      return outcomes;
    } finally {
      timer.cancel();
      for (const each of [signal, until]) each?.removeEventListener('abort', stop);
    }
  }
}
