import { BoundedMap } from '../base/bounded-map.ts';
import type { Remote } from '../coap/message.ts';

export interface DeviceAddress {
  readonly address: string;
  readonly port: number;
  /** The device itself proved its identity from there; else the claim of a request through the tunnel. */
  readonly proven: boolean;
}

/** Devices whose address is remembered; the one heard longest ago is forgotten first. */
const limit = 8192;

/** Where devices were heard last. A claim never displaces an address that was proved. */
export class DeviceAddresses {
  readonly #known = new BoundedMap<string, DeviceAddress>(limit);

  get(deviceId: string): DeviceAddress | undefined {
    return this.#known.get(deviceId);
  }

  heard(deviceId: string, { address, port }: Remote, proven: boolean): void {
    if (!proven && this.#known.get(deviceId)?.proven) return;
    this.#known.set(deviceId, { address, port, proven });
  }
}
