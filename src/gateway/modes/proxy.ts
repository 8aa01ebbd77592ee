import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Work } from '../../dm/server-session.ts';
import { encodeNotification, resyncNonces } from '../../wire/syncml/notification.ts';
import type { Credentials } from '../store/credentials.ts';
import { type Manage, WaitingWork } from './waiting-work.ts';

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

/** Proxy mode: the gateway, as DM server, does operations on its devices in sessions of its own with them. */
export class ProxyMode {
  readonly #parts: ProxyModeParts;
  readonly #waiting: WaitingWork;
  #nextSessionId: number;

  constructor(parts: ProxyModeParts) {
    this.#parts = parts;
    this.#waiting = new WaitingWork(parts.clock);
    this.#nextSessionId = 1 + Math.floor(parts.entropy.uniform() * 0x7fff);
  }

  /** What waits for a device, for the session that it has opened. */
  work(deviceId: string): Work {
    return this.#waiting.of(deviceId);
  }

  /** A device is attached here no more: what waits for it is not done. */
  detached(deviceId: string): void {
    this.#waiting.detached(deviceId);
  }

  /**
   * Does operations in the session that the device opens next, and asks for one by Package #0 where the device can be
   * reached.
   * @throws {PosternError} `notFound` for a device without an account here, `timeout`, `full`, or why its session failed
   */
  readonly manage: Manage = async (deviceId, operations, options) => {
    const { credentials, isReachable } = this.#parts;
    if (!credentials.get(deviceId))
      throw new PosternError('notFound', `${deviceId} has no account for this gateway`);
    return await this.#waiting.perform(deviceId, operations, options, async () => {
      if (isReachable(deviceId)) await this.#sendPackage0(deviceId);
    });
  };

  async #sendPackage0(deviceId: string): Promise<void> {
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
