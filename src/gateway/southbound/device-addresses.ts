import { BoundedMap } from '../../base/bounded-map.ts';
import type { Remote } from '../../wire/coap/message.ts';

export interface DeviceAddress {
  readonly address: string;
  readonly port: number;
  /** The device itself proved its identity from there; else the claim of a request through the tunnel. */
  readonly proven: boolean;
}

/** Devices whose address is remembered; the one heard longest ago is forgotten first. */
const limit = 16_384;

const key = ({ address, port }: Pick<Remote, 'address' | 'port'>): string => `${address} ${port}`;

/** Where devices were heard last. A claim never displaces an address that was proved. */
export class DeviceAddresses {
  readonly #known = new BoundedMap<string, DeviceAddress>(limit);
  readonly #provenAt = new BoundedMap<string, string>(limit);

  get(deviceId: string): DeviceAddress | undefined {
    return this.#known.get(deviceId);
  }

  heard(deviceId: string, { address, port }: Remote, proven: boolean): void {
    const before = this.#known.get(deviceId);
    if (!proven && before?.proven) return;
    if (before) this.#provenAt.delete(key(before));
    if (proven) this.#provenAt.set(key({ address, port }), deviceId);
    this.#known.set(deviceId, { address, port, proven });
  }

  /** The device that proved itself from there last. */
  deviceAt(remote: Pick<Remote, 'address' | 'port'>): string | undefined {
    return this.#provenAt.get(key(remote));
  }
}
