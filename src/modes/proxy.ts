import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { Jobs } from '../dm/jobs.ts';
import type { Operation, OperationOutcome, Work } from '../dm/server-session.ts';
import type { Credentials } from '../store/credentials.ts';
import { encodeNotification, resyncNonces } from '../syncml/notification.ts';

export interface ProxyModeParts {
  /** ServerID of the gateway, as its devices know it. */
  readonly gatewayId: string;
  readonly credentials: Pick<Credentials, 'get'>;
  /** Delivers a Package #0 to a device. */
  readonly reach: (deviceId: string, package0: Uint8Array) => Promise<void>;
  readonly isReachable: (deviceId: string) => boolean;
  readonly clock: Clock;
  readonly entropy: Entropy;
}

export interface ManageOptions {
  /** Milliseconds until the session must have begun. */
  readonly timeout: number;
  /** Hears that it has, and that something may have been done from then on. */
  readonly begun?: () => void;
  /** Gives it up. */
  readonly signal?: AbortSignal;
}

/** Proxy mode: the gateway, as DM server, does operations on its devices in sessions of its own with them. */
export class ProxyMode {
  readonly #parts: ProxyModeParts;
  readonly #jobs = new Jobs();
  #nextSessionId: number;

  constructor(parts: ProxyModeParts) {
    this.#parts = parts;
    this.#nextSessionId = 1 + Math.floor(parts.entropy.uniform() * 0x7fff);
  }

  /** What waits for a device, for the session that it has opened. */
  work(deviceId: string): Work {
    return this.#jobs.work(deviceId);
  }

  /** A device is attached here no more: what waits for it is not done. */
  detached(deviceId: string): void {
    this.#jobs.reject(deviceId, new PosternError('notFound', `${deviceId} was detached`));
  }

  /**
   * Does operations in the session that the device opens next, and asks for one by Package #0 where the device can be
   * reached.
   * @throws {PosternError} `notFound` for a device without an account here, `timeout`, `full`, or why its session failed
   */
  async manage(
    deviceId: string,
    operations: readonly Operation[],
    { timeout, begun, signal }: ManageOptions,
  ): Promise<readonly OperationOutcome[]> {
    const { credentials, clock, isReachable } = this.#parts;
    if (!credentials.get(deviceId))
      throw new PosternError('notFound', `${deviceId} has no account for this gateway`);
    const giveUp = new AbortController();
    const timer = clock.after(timeout, () =>
      giveUp.abort(new PosternError('timeout', `${deviceId} opened no session in ${timeout} ms`)),
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
      if (isReachable(deviceId))
        this.#notify(deviceId).catch((thrown) => giveUp.abort(asPosternError(thrown)));
      await done;
      return outcomes;
    } finally {
      timer.cancel();
    }
  }

  async #notify(deviceId: string): Promise<void> {
    const { gatewayId, credentials, reach } = this.#parts;
    const credential = credentials.get(deviceId);
    if (!credential) return;
    this.#nextSessionId = (this.#nextSessionId % 0xffff) + 1;
    const notification = {
      uiMode: 1,
      serverInitiated: true,
      sessionId: this.#nextSessionId,
      serverId: gatewayId,
    } as const;
    const send = (nonce: Uint8Array) =>
      reach(deviceId, encodeNotification(notification, credential.serverSecret, nonce));
    try {
      await send(credential.serverNonce);
    } catch (thrown) {
      if (asPosternError(thrown).code !== 'unauthorized') throw thrown;
      // The device has another nonce than the gateway believes: a session has just changed it (section 6.1).
      await send(resyncNonces[0]);
    }
  }
}
