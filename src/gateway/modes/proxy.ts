import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Work } from '../../dm/server-session.ts';
import { encodeNotification, resyncNonces } from '../../wire/syncml/notification.ts';
import type { Credentials } from '../store/credentials.ts';
import { type Manage, WaitingWork } from './waiting-work.ts';

export interface ProxyModeParts {
  /** ServerID of the gateway in the accounts of its devices. */
  readonly gatewayId: string;
  readonly credentials: Pick<Credentials, 'get'>;
  /** Delivers a Package #0 to a device. */
  readonly reach: (deviceId: string, package0: Uint8Array) => Promise<void>;
  /** Called when a device is asked for a session, so that its next message is not taken for one of its own. */
  readonly asked: (deviceId: string) => void;
  /** Called when a Package #0 did not reach a device: nothing answered, or what answered refused it. */
  readonly missed: (deviceId: string, reason: PosternError) => void;
  /** Whether an address of the device is known, so that it can get a Package #0. */
  readonly isReachable: (deviceId: string) => boolean;
  readonly clock: Clock;
  readonly entropy: Entropy;
}

/**
 * Proxy mode (GwMO): the gateway is DM server of its devices, and performs operations in its own sessions with them.
 */
export class ProxyMode {
  readonly #parts: ProxyModeParts;
  readonly #waiting: WaitingWork;
  #nextSessionId: number;

  constructor(parts: ProxyModeParts) {
    this.#parts = parts;
    this.#waiting = new WaitingWork(parts.clock);
    this.#nextSessionId = 1 + Math.floor(parts.entropy.uniform() * 0x7fff);
  }

  /** The waiting operations of a device, to be run in the session that the device has opened. */
  work(deviceId: string): Work {
    return this.#waiting.of(deviceId);
  }

  /** Those of them that may begin before the device has answered. */
  earlyWork(deviceId: string): Work {
    return this.#waiting.early(deviceId);
  }

  /** To be called when a device is no longer attached. Waiting operations fail with `notFound`. */
  detached(deviceId: string): void {
    this.#waiting.detached(deviceId);
  }

  /**
   * Performs operations in the next session that the device opens. Requests that session by Package #0 when the device
   * can be reached.
   * @throws {PosternError} `notFound` for a device without an account here or that was detached, `timeout`, `full`, or
   * the error of the session
   */
  readonly manage: Manage = async (deviceId, operations, options) => {
    const { credentials, isReachable } = this.#parts;
    if (!credentials.get(deviceId))
      throw new PosternError('notFound', `${deviceId} has no account for this gateway`);
    return await this.#waiting.perform(deviceId, operations, options, async () => {
      if (isReachable(deviceId)) await this.requestSession(deviceId);
      else options.away?.();
    });
  };

  /**
   * Asks a device for a session by Package #0. Does nothing without a credential of the device.
   * @throws {PosternError} as `TransparentMode.deliver`
   */
  async requestSession(deviceId: string): Promise<void> {
    const { gatewayId, credentials, reach, asked, missed } = this.#parts;
    const credential = credentials.get(deviceId);
    if (!credential) return;
    asked(deviceId);
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
      await send(credential.serverNonce).catch(async (thrown) => {
        if (asPosternError(thrown).code !== 'unauthorized') throw thrown;
        // A session may just have changed the device's nonce. The resynchronization nonce works with any (OMA DM
        // notification 1.2.1, section 6.1).
        await send(resyncNonces[0]);
      });
    } catch (thrown) {
      const reason = asPosternError(thrown);
      if (reason.code === 'timeout' || reason.code === 'unauthorized') missed(deviceId, reason);
      throw thrown;
    }
  }
}
