import type { Database } from '../../base/database.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { DeviceRecord } from '../../mo/device-record.ts';
import { type CoapAnswer, type CoapCall, call } from '../../wire/coap/blockwise-client.ts';
import type { Remote } from '../../wire/coap/message.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { childIn } from '../rights/child-scope.ts';
import type { Inventory } from '../store/inventory.ts';
import type { CoapNetwork } from './coap-network.ts';
import { type DeviceAddresses, type PeerAddress, placeOf } from './device-addresses.ts';
import type { DeviceContexts } from './device-contexts.ts';

export interface DeviceLocatorParts {
  readonly network: CoapNetwork;
  /** The network over DTLS, where it is served. */
  readonly secureNetwork: CoapNetwork | undefined;
  /** The network that reaches a device at this address and port: that of DTLS while it has an association with it. */
  readonly networkAt: (address: string, port: number) => CoapNetwork;
  /** The security contexts of OSCORE, where it is served. */
  readonly contexts: Pick<DeviceContexts, 'has' | 'isAt'> | undefined;
  readonly addresses: DeviceAddresses;
  readonly inventory: Inventory;
  readonly database: Database;
  readonly entropy: Entropy;
}

/** Finds out where devices are, and how the gateway and the devices reach each other. */
export class DeviceLocator {
  readonly #parts: DeviceLocatorParts;

  constructor(parts: DeviceLocatorParts) {
    this.#parts = parts;
  }

  /**
   * URI of a path on this gateway, with the address at which a device reaches the gateway: over DTLS when the device has an
   * association, and when it is to make one (`hasKey`) and DTLS is served.
   * @throws {PosternError} `unavailable` when no suitable local address is bound
   */
  uriFor(deviceId: string, path: string, hasKey = false): string {
    const { network, secureNetwork, networkAt, addresses } = this.#parts;
    const heard = addresses.get(deviceId);
    const present = heard ? networkAt(heard.address, heard.port) : network;
    return ((hasKey && secureNetwork) || present).uriTowards(heard?.address, path, heard?.heardOn);
  }

  /**
   * URI of an address and port: `coaps` while there is an association with who is there, else `coap`.
   * @param deviceId also `coaps` where this device was heard there last over DTLS, and its association has ended since
   */
  uriOf({ address, port }: PeerAddress, deviceId?: string): string {
    const { network, networkAt, inventory } = this.#parts;
    const secure = coapUri(address, port, '', 'coaps');
    const isSecure =
      networkAt(address, port) !== network ||
      (deviceId !== undefined && inventory.get(deviceId)?.address === secure);
    return isSecure ? secure : coapUri(address, port);
  }

  /** Whether there is an association where a device was heard last. */
  isReached(deviceId: string): boolean {
    const heard = this.#parts.addresses.get(deviceId);
    return heard !== undefined && this.#parts.networkAt(heard.address, heard.port) !== this.#parts.network;
  }

  /**
   * What protects the messages of a directly attached device, as it was heard last. Undefined behind a child gateway.
   */
  securityOf(record: DeviceRecord): 'DTLS' | 'OSCORE' | 'TLS' | 'none' | undefined {
    const { deviceId, via, address } = record;
    if (via !== undefined) return undefined;
    if (address.startsWith('coaps:')) return 'DTLS';
    if (address.startsWith('https:')) return 'TLS';
    const place = placeOf(record);
    return place && this.#parts.contexts?.isAt(deviceId, place) ? 'OSCORE' : 'none';
  }

  /** URI by which a device gets a path of images: by HTTP when that is how it comes. @throws {PosternError} as `uriFor` */
  imageUriFor(deviceId: string, path: string): string {
    const sessions = this.#parts.addresses.httpUriOf(deviceId);
    return sessions === undefined ? this.uriFor(deviceId, path) : new URL(path, sessions).href;
  }

  /**
   * ID of the child gateway through which a device is reached; undefined when it is reached directly. It is known from
   * the child's alerts, or because the device's packages come from the child's address.
   */
  childOf(deviceId: string): string | undefined {
    const { inventory, addresses } = this.#parts;
    const child = childIn(inventory.get(deviceId));
    if (child !== undefined) return child;
    const heard = addresses.get(deviceId);
    const holder = heard && this.childAt(heard);
    return holder === deviceId ? undefined : holder;
  }

  /** ID of the attached child gateway that has last proved its identity at this address. */
  childAt(from: PeerAddress): string | undefined {
    const holder = this.#parts.addresses.deviceAt(from);
    return holder !== undefined && this.#parts.inventory.get(holder)?.isGateway ? holder : undefined;
  }

  /**
   * Whether a request comes without security from an address and port where a device has an association of DTLS, or where a
   * device with a context of OSCORE has proved itself. Anyone may forge these, and what the device has proved there counts for
   * its records and requests alone.
   */
  isUnsure({ address, port, identity }: Pick<Remote, 'address' | 'port' | 'identity'>): boolean {
    const { network, networkAt, contexts, addresses } = this.#parts;
    if (identity !== undefined) return false;
    if (networkAt(address, port) !== network) return true;
    const holder = addresses.deviceAt({ address, port });
    return holder !== undefined && (contexts?.has(holder) ?? false);
  }

  /** Whether a request comes from where an attached device has last proved its identity, or by the key of an attached device. */
  isAttachedAt(remote: Remote): boolean {
    const { inventory, addresses } = this.#parts;
    const deviceId = remote.identity ?? addresses.deviceAt(remote) ?? '';
    return !this.isUnsure(remote) && inventory.get(deviceId) !== undefined;
  }

  /** Whether a request comes from the IP address where this device has last proved its identity. */
  isHost(deviceId: string, remote: Remote): boolean {
    const known = this.#parts.addresses.get(deviceId);
    return known?.proven === true && known.address === remote.address && !this.isUnsure(remote);
  }

  /** Whether a local address leads to this address. */
  isInReach({ address, port, heardOn }: PeerAddress): boolean {
    return this.#parts.networkAt(address, port).towards(address, heardOn) !== undefined;
  }

  /** Whether what is sent to this address is protected, so that this device alone can read it. */
  isProtected({ address, port, heardOn }: PeerAddress, deviceId: string): boolean {
    const endpoint = this.#parts.networkAt(address, port).towards(address, heardOn);
    return endpoint?.protects(address, port, deviceId) ?? false;
  }

  /**
   * Whether somebody answers a CoAP ping at this address within `timeout` milliseconds. It does not say who.
   * @throws {PosternError} `full` or `unavailable` when the ping could not be sent, which says nothing of the peer
   */
  async answers({ address, port, heardOn }: PeerAddress, timeout: number): Promise<boolean> {
    const endpoint = this.#parts.networkAt(address, port).towards(address, heardOn);
    return (await endpoint?.ping(address, port, timeout)) ?? false;
  }

  /** The local address from which `call` sends to an address, over DTLS or not; undefined when none suits. */
  sourceTowards(address: string, isSecure = false): string | undefined {
    const { network, secureNetwork } = this.#parts;
    return (isSecure ? secureNetwork : network)?.addressTowards(address);
  }

  /**
   * Sends a CoAP request from the local address that suits `address`.
   * @param heardOn local address that heard the peer; it is used as long as it is bound
   * @throws {PosternError} `unavailable` when no local address suits, else as `call` (wire/coap/blockwise-client.ts)
   */
  async call(address: string, port: number, request: CoapCall, heardOn?: string): Promise<CoapAnswer> {
    const endpoint = this.#parts.networkAt(address, port).towards(address, heardOn);
    // What the request may cause must not be forgotten by this gateway.
    await this.#parts.database.settled();
    if (!endpoint) throw new PosternError('unavailable', `no interface leads to ${address}`);
    return await call(endpoint, this.#parts.entropy, address, port, request);
  }
}
