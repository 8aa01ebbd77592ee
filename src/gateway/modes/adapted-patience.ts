import type { Clock, Monotonic } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { unlessAborted } from '../../base/unless-aborted.ts';

export interface AdaptedPatienceParts {
  /** Whether the client has been heard at its address since a time, or proves itself now. Never rejects. */
  readonly isThere: (since: Monotonic, signal: AbortSignal) => Promise<boolean>;
  /** Aborted at the deadline of the order, or when the gateway stops. */
  readonly signal: AbortSignal;
  readonly clock: Clock;
}

/**
 * How long an order waits for an LwM2M client: until its deadline, and while the client is there. After a command without an
 * answer the client must prove itself before the next command. If it does not, no further command of the order is sent.
 */
export class AdaptedPatience {
  readonly signal: AbortSignal;
  readonly #parts: AdaptedPatienceParts;
  /** When the last command began, if it got no answer. */
  #unanswered: Monotonic | undefined;
  #isSilent = false;

  constructor(parts: AdaptedPatienceParts) {
    this.#parts = parts;
    this.signal = parts.signal;
  }

  /**
   * Does one command.
   * @throws {PosternError} `timeout` when the client is silent or the deadline has come; the error of the command
   */
  async try<T>(command: () => Promise<T>): Promise<T> {
    const { signal } = this;
    const { clock, isThere } = this.#parts;
    signal.throwIfAborted();
    const since = this.#unanswered;
    this.#unanswered = undefined;
    if (since !== undefined) this.#isSilent ||= !(await unlessAborted(isThere(since, signal), signal));
    if (this.#isSilent) throw new PosternError('timeout', 'the client has not answered the command before');
    const begun = clock.now();
    try {
      return await unlessAborted(command(), signal);
    } catch (thrown) {
      if (asPosternError(thrown).code === 'timeout') this.#unanswered = begun;
      throw thrown;
    }
  }
}
