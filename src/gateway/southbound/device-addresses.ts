import { BoundedMap } from '../../base/bounded-map.ts';
import type { DeviceRecord } from '../../mo/device-record.ts';
import { parseCoapUri } from '../../wire/coap/uri.ts';

/** An address and port of a device, and the socket that leads there. */
export interface PeerAddress {
  readonly address: string;
  readonly port: number;
  /** Local IP address of the socket on which the device was heard. Requests to the device leave by the same socket. */
  readonly heardOn?: string | undefined;
}

/** Address from which a device was last heard. */
export interface DeviceAddress extends PeerAddress {
  /**
   * True when the device proved its identity at this address: an OMA DM device by authentication, an LwM2M client by
   * what only this client knows. False when a request through the tunnel only claimed the device ID.
   */
  readonly proven: boolean;
}

/** Devices whose addresses and last messages are remembered, attached or not. It is more if more may be attached. */
export const rememberedDevices = 16_384;

const key = ({ address, port }: PeerAddress): string => `${address} ${port}`;

/**
 * Addresses from which devices were last heard. A claimed address never replaces a proven one. The proven ones are
 * durable in the inventory, so a restart forgets no attached device.
 */
export class DeviceAddresses {
  readonly #known: BoundedMap<string, DeviceAddress>;
  readonly #provenAt: BoundedMap<string, string>;

  /** @param limit maximum number of remembered devices. The device heard longest ago is forgotten first */
  constructor(limit: number = rememberedDevices) {
    this.#known = new BoundedMap(limit);
    this.#provenAt = new BoundedMap(limit);
  }

  get(deviceId: string): DeviceAddress | undefined {
    return this.#known.get(deviceId);
  }

  /**
   * Takes a message of a device. Returns the device that had proved its identity at this address before, if this device
   * is another one and has proved its identity now.
   * @param proven whether the device proved its identity at this address; see `DeviceAddress`
   */
  heard(deviceId: string, { address, port, heardOn }: PeerAddress, proven: boolean): string | undefined {
    const before = this.#known.get(deviceId);
    if (!proven && before?.proven) return undefined;
    const found = { address, port, heardOn, proven };
    this.#known.set(deviceId, found);
    if (!proven) return undefined;
    const other = this.#provenAt.get(key(found));
    // Another device may have proved its identity at the old address of this one since.
    if (before && this.deviceAt(before) === deviceId) this.#provenAt.delete(key(before));
    this.#provenAt.set(key(found), deviceId);
    return other === deviceId ? undefined : other;
  }

  /** ID of the device that last proved its identity at this address and port. */
  deviceAt(peer: PeerAddress): string | undefined {
    return this.#provenAt.get(key(peer));
  }

  /** The device that has proved its identity at the last address of this device since this device did. */
  successorOf(deviceId: string): string | undefined {
    const known = this.#known.get(deviceId);
    const holder = known?.proven ? this.deviceAt(known) : undefined;
    return holder === deviceId ? undefined : holder;
  }

  /** Takes the addresses of the directly attached devices from the inventory, after a restart. */
  restore(records: Iterable<DeviceRecord>): void {
    // The device heard last is the one that is at an address now. One that was unreachable lost its address to another one,
    // whatever a clock said that may have been wrong.
    const attached = [...records].filter(
      ({ via, address }) => via === undefined && address.startsWith('coap:'),
    );
    const isReached = ({ state }: DeviceRecord) => Number(state === 'attached');
    const inOrder = attached.toSorted((a, b) => isReached(a) - isReached(b) || a.lastSeen - b.lastSeen);
    for (const record of inOrder) {
      const where = placeOf(record);
      if (where) this.heard(record.deviceId, where, true);
    }
  }
}

/** The address in a record. `undefined` when it cannot be read. */
function placeOf({ address: uri, heardOn }: DeviceRecord): PeerAddress | undefined {
  try {
    const { host, port } = parseCoapUri(uri);
    // A URI has no zone. A link-local device is in the zone of the socket that heard it.
    const zone = host.startsWith('fe80:') ? heardOn?.split('%')[1] : undefined;
    return { address: zone === undefined ? host : `${host}%${zone}`, port, heardOn };
  } catch {
    return undefined;
  }
}
