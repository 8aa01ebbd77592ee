import { BoundedMap } from '../../base/bounded-map.ts';
import type { Remote } from '../../wire/coap/message.ts';

/** Address from which a device was last heard. */
export interface DeviceAddress {
  readonly address: string;
  readonly port: number;
  /**
   * True when the device proved its identity at this address: an OMA DM device by authentication, an LwM2M client by
   * its answer to a request. False when a request through the tunnel only claimed the device ID.
   */
  readonly proven: boolean;
}

/** Maximum number of remembered devices. The device heard longest ago is forgotten first. */
const limit = 16_384;

const key = ({ address, port }: Pick<Remote, 'address' | 'port'>): string => `${address} ${port}`;

/** Addresses from which devices were last heard. A claimed address never replaces a proven one. */
export class DeviceAddresses {
  readonly #known = new BoundedMap<string, DeviceAddress>(limit);
  readonly #provenAt = new BoundedMap<string, string>(limit);

  get(deviceId: string): DeviceAddress | undefined {
    return this.#known.get(deviceId);
  }

  /** @param proven whether the device proved its identity at this address; see `DeviceAddress` */
  heard(deviceId: string, { address, port }: Remote, proven: boolean): void {
    const before = this.#known.get(deviceId);
    if (!proven && before?.proven) return;
    if (before) this.#provenAt.delete(key(before));
    if (proven) this.#provenAt.set(key({ address, port }), deviceId);
    this.#known.set(deviceId, { address, port, proven });
  }

  /** ID of the device that last proved its identity at this address and port. */
  deviceAt(remote: Pick<Remote, 'address' | 'port'>): string | undefined {
    return this.#provenAt.get(key(remote));
  }
}
