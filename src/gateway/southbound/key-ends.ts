import type { CoapTransport } from '../../wire/secure/coap-transport.ts';
import type { DeviceKeys } from '../store/device-keys.ts';
import type { DeviceContexts } from './device-contexts.ts';
import type { DeviceSessions } from './device-sessions.ts';

export interface KeyEndsParts {
  readonly keys: DeviceKeys;
  /** DTLS; undefined where it is not served. */
  readonly transport: Pick<CoapTransport, 'revoke' | 'retire'> | undefined;
  /** OSCORE; undefined where it is not served. */
  readonly contexts: Pick<DeviceContexts, 'end'> | undefined;
  readonly sessions: Pick<DeviceSessions, 'detached'>;
}

/** Ends the associations, the security context and the sessions of a device at once when its key ends. */
export class KeyEnds {
  /** Devices that are leaving just now: the answer to their goodbye is still to go. */
  readonly #leaving = new Set<string>();

  constructor({ keys, transport, contexts, sessions }: KeyEndsParts) {
    keys.onEnded((identity, deviceId) => {
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
