import type { CoapTransport } from '../../wire/secure/coap-transport.ts';
import type { Credentials } from '../store/credentials.ts';
import type { DeviceContexts } from './device-contexts.ts';
import type { DeviceSessions } from './device-sessions.ts';

export interface KeyEndsParts {
  readonly credentials: Pick<Credentials, 'keys' | 'onEnded'>;
  /** DTLS; undefined where it is not served. */
  readonly transport: Pick<CoapTransport, 'revoke' | 'retire'> | undefined;
  /** OSCORE; undefined where it is not served. */
  readonly contexts: Pick<DeviceContexts, 'end'> | undefined;
  readonly sessions: Pick<DeviceSessions, 'detached'>;
}

/**
 * Ends the associations, the security context and the sessions of a device at once when its key ends, and its sessions when its
 * credential does: over HTTP and plain CoAP a device has no key.
 */
export class KeyEnds {
  /** Devices that are leaving just now: the answer to their goodbye is still to go. */
  readonly #leaving = new Set<string>();

  constructor({ credentials, transport, contexts, sessions }: KeyEndsParts) {
    credentials.onEnded((deviceId) => {
      if (!this.#leaving.has(deviceId)) sessions.detached(deviceId, 'the account of the device has ended');
    });
    credentials.keys.onEnded((identity, deviceId) => {
      const isLeaving = this.#leaving.has(deviceId);
      contexts?.end(identity, isLeaving);
      if (isLeaving) {
        transport?.retire(identity);
        return;
      }
      transport?.revoke(identity);
      sessions.detached(deviceId, 'the key that the device proved itself by has ended');
    });
  }

  /** Runs what detaches a device that leaves of its own will. */
  goodbye(deviceId: string, detach: () => void): void {
    this.#leaving.add(deviceId);
    try {
      detach();
    } finally {
      this.#leaving.delete(deviceId);
    }
  }
}
