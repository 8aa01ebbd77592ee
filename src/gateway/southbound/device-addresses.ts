import { BoundedMap } from '../../base/bounded-map.ts';
import { FairMap } from '../../base/fair-map.ts';
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
 * Bounds of the devices that only claimed to be at an address. Anyone may claim any device, so these devices have a table of their
 * own.
 */
export const claimedDevices = { entries: 4096, perAddress: 64, perPrefix: 1024 } as const;

/**
 * Addresses from which devices were last heard. A claimed address never replaces a proven one, of this device or of another. The
 * proven ones are durable in the inventory, so a restart forgets no attached device.
 */
export class DeviceAddresses {
  readonly #proven: BoundedMap<string, DeviceAddress>;
  /** Claimed by a peer that is itself proven: a child gateway, for the devices behind it. */
  readonly #behind: FairMap<DeviceAddress>;
  readonly #claimed = new FairMap<DeviceAddress>(claimedDevices);
  readonly #provenAt: BoundedMap<string, string>;
  /** URIs of this gateway for devices that came over HTTP last, where they proved themselves to it or to their DM server. */
  readonly #overHttp: BoundedMap<string, string>;

  /** @param limit maximum number of remembered devices. The device heard longest ago is forgotten first */
  constructor(limit: number = rememberedDevices) {
    this.#proven = new BoundedMap(limit);
    const half = Math.ceil(limit / 2);
    this.#behind = new FairMap({ entries: limit, perAddress: half, perPrefix: Math.ceil(1.5 * half) });
    this.#provenAt = new BoundedMap(limit);
    this.#overHttp = new BoundedMap(limit);
  }

  /** Undefined also for a device that came over HTTP last: a connection of its own does not lead back to it. */
  get(deviceId: string): DeviceAddress | undefined {
    if (this.#overHttp.has(deviceId)) return undefined;
    return this.#proven.get(deviceId) ?? this.#behind.get(deviceId) ?? this.#claimed.get(deviceId);
  }

  /**
   * Takes a message of a device. Returns the device that had proved its identity at this address before, if this device
   * is another one and has proved its identity now.
   * @param proven whether the device proved its identity at this address; see `DeviceAddress`
   */
  heard(deviceId: string, { address, port, heardOn }: PeerAddress, proven: boolean): string | undefined {
    this.#overHttp.delete(deviceId);
    const before = this.#proven.get(deviceId);
    const found = { address, port, heardOn, proven };
    if (!proven) {
      if (!before) this.#claim(deviceId, found);
      return undefined;
    }
    this.#proven.set(deviceId, found);
    this.#behind.delete(deviceId);
    this.#claimed.delete(deviceId);
    const other = this.#provenAt.get(key(found));
    // Another device may have proved its identity at the old address of this one since.
    if (before && this.deviceAt(before) === deviceId) this.#provenAt.delete(key(before));
    this.#provenAt.set(key(found), deviceId);
    return other === deviceId ? undefined : other;
  }

  /**
   * Takes a message of a device that came over HTTP, and has proved itself to this gateway or to its DM server.
   * @param uri URI of the sessions with this gateway, as the device reaches them
   */
  heardOverHttp(deviceId: string, uri: string): void {
    this.#overHttp.set(deviceId, uri);
  }

  /** That URI. Undefined for a device that was not heard, or over CoAP since. */
  httpUriOf(deviceId: string): string | undefined {
    return this.#overHttp.get(deviceId);
  }

  #claim(deviceId: string, found: DeviceAddress): void {
    const isBehind = this.deviceAt(found) !== undefined;
    // A stranger's claim does not displace what a proven peer said.
    if (!isBehind && this.#behind.has(deviceId)) return;
    this.#claimed.delete(deviceId);
    (isBehind ? this.#behind : this.#claimed).set(deviceId, found.address, found);
  }

  /** ID of the device that last proved its identity at this address and port. */
  deviceAt(peer: PeerAddress): string | undefined {
    return this.#provenAt.get(key(peer));
  }

  /** The device that has proved its identity at the last address of this device since this device did. */
  successorOf(deviceId: string): string | undefined {
    const known = this.#proven.get(deviceId);
    const holder = known && this.deviceAt(known);
    return holder === deviceId ? undefined : holder;
  }

  /** Takes the addresses of the directly attached devices from the inventory, after a restart. */
  restore(records: Iterable<DeviceRecord>): void {
    // The device heard last is the one that is at an address now. One that was unreachable lost its address to another one,
    // whatever a clock said that may have been wrong.
    const attached = [...records].filter(({ via, address }) => via === undefined && /^coaps?:/.test(address));
    const isReached = ({ state }: DeviceRecord) => Number(state === 'attached');
    const inOrder = attached.toSorted((a, b) => isReached(a) - isReached(b) || a.lastSeen - b.lastSeen);
    for (const record of inOrder) {
      const where = placeOf(record);
      if (where) this.heard(record.deviceId, where, true);
    }
  }
}

/** The address in a record. `undefined` when it cannot be read. */
export function placeOf({ address: uri, heardOn }: DeviceRecord): PeerAddress | undefined {
  try {
    const { host, port } = parseCoapUri(uri);
    // A URI has no zone. A link-local device is in the zone of the socket that heard it.
    const zone = host.startsWith('fe80:') ? heardOn?.split('%')[1] : undefined;
    return { address: zone === undefined ? host : `${host}%${zone}`, port, heardOn };
  } catch {
    return undefined;
  }
}

/** The IP addresses where the directly attached devices of the inventory proved themselves last, over CoAP or HTTP. */
export function* provenAddresses(
  records: Iterable<DeviceRecord>,
  addresses: Pick<DeviceAddresses, 'get'>,
): Generator<string> {
  for (const { deviceId, via, address } of records) {
    if (via !== undefined) continue;
    const known = addresses.get(deviceId);
    if (known?.proven) yield known.address;
    else if (address.startsWith('http') && URL.canParse(address))
      yield new URL(address).hostname.replace(/^\[|\]$/g, '');
  }
}
