import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import { type CoapAnswer, type CoapCall, call } from '../../wire/coap/blockwise-client.ts';
import type { Remote } from '../../wire/coap/message.ts';
import type { Inventory } from '../store/inventory.ts';
import type { CoapNetwork } from './coap-network.ts';
import type { DeviceAddresses } from './device-addresses.ts';

export interface DeviceLocatorParts {
  readonly network: CoapNetwork;
  readonly addresses: DeviceAddresses;
  readonly inventory: Inventory;
  readonly entropy: Entropy;
}

/** Milliseconds in which a device must answer to count as alive at its old address. */
const livenessTimeout = 2000;

/** Where devices are, and how the gateway and they reach each other. */
export class DeviceLocator {
  readonly #parts: DeviceLocatorParts;

  constructor(parts: DeviceLocatorParts) {
    this.#parts = parts;
  }

  /**
   * URI of a path of this gateway, as a device sees it.
   * @throws {PosternError} `unavailable` without an address
   */
  uriFor(deviceId: string, path: string): string {
    const { network, addresses } = this.#parts;
    const heard = addresses.get(deviceId);
    return network.uriTowards(heard?.address, path);
  }

  /** The child gateway by which a device is reached: known from its alerts, or since its packages come from there. */
  childOf(deviceId: string): string | undefined {
    const { inventory, addresses } = this.#parts;
    const via = inventory.get(deviceId)?.via;
    if (via !== undefined) return via.split('/')[0];
    const heard = addresses.get(deviceId);
    const holder = heard && addresses.deviceAt(heard);
    const isChild = holder !== undefined && holder !== deviceId && inventory.get(holder)?.isGateway;
    return isChild ? holder : undefined;
  }

  /** Whether an attached device proved itself from there. */
  isAttachedAt(remote: Remote): boolean {
    const { inventory, addresses } = this.#parts;
    return inventory.get(addresses.deviceAt(remote) ?? '') !== undefined;
  }

  /** A device that proved this ID answers from another address and port than the one that asks. */
  async livesElsewhere(deviceId: string, remote: Remote): Promise<boolean> {
    const { inventory, addresses } = this.#parts;
    const known = addresses.get(deviceId);
    if (!known?.proven || !inventory.get(deviceId)) return false;
    if (known.address === remote.address && known.port === remote.port) return false;
    return await this.isAlive(deviceId);
  }

  async isAlive(deviceId: string): Promise<boolean> {
    const known = this.#parts.addresses.get(deviceId);
    const endpoint = known && this.#parts.network.towards(known.address);
    return (await endpoint?.ping(known?.address ?? '', known?.port ?? 0, livenessTimeout)) ?? false;
  }

  /** @throws {PosternError} `unavailable` when no interface leads there, and as `call` of a CoAP endpoint */
  async call(address: string, port: number, request: CoapCall): Promise<CoapAnswer> {
    const endpoint = this.#parts.network.towards(address);
    if (!endpoint) throw new PosternError('unavailable', `no interface leads to ${address}`);
    return await call(endpoint, this.#parts.entropy, address, port, request);
  }
}
