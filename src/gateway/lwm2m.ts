import type { DatabaseSync } from 'node:sqlite';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { GatewayMode } from '../mo/gw-config.ts';
import type { Remote } from '../wire/coap/message.ts';
import { remoteKey } from '../wire/coap/peer.ts';
import type { Resource } from '../wire/coap/router.ts';
import type { GatewayConfig } from './config.ts';
import { AdaptationMode } from './modes/adaptation.ts';
import type { Manage } from './modes/waiting-work.ts';
import type { Associations } from './southbound/associations.ts';
import type { LocalEndpoint } from './southbound/coap-network.ts';
import type { DeviceAddresses } from './southbound/device-addresses.ts';
import { LwM2mBootstrapServer } from './southbound/lwm2m-bootstrap-server.ts';
import { LwM2mCalls } from './southbound/lwm2m-calls.ts';
import type { Reach } from './southbound/reach.ts';
import { RegistrationServer } from './southbound/registration-server.ts';
import type { Inventory } from './store/inventory.ts';
import { type Registration, Registrations } from './store/registrations.ts';

export interface GatewayAdaptationParts {
  readonly settings: NonNullable<GatewayConfig['lwm2m']>;
  readonly limit: number;
  readonly database: DatabaseSync;
  readonly inventory: Inventory;
  readonly addresses: DeviceAddresses;
  readonly reach: Reach;
  readonly associations: Associations;
  /** A client that is attached was heard. */
  readonly heard: (deviceId: string, remote: Remote) => void;
  /** An update that a client accepted has ended, with a result code of FUMO. */
  readonly updated: (deviceId: string, correlator: string | undefined, result: number) => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** What log and `postern status` say of LwM2M clients for now. */
export const lwm2mWarning = 'LwM2M clients prove nothing; who knows an endpoint name can take its place';

/** All that a gateway has for devices that speak LwM2M: bootstrap server, registrations, adaptation mode. */
export class GatewayAdaptation implements AsyncDisposable {
  readonly #parts: GatewayAdaptationParts;
  readonly #registrations: Registrations;
  readonly #server: RegistrationServer;
  readonly #bootstrapServer: LwM2mBootstrapServer;
  readonly #mode: AdaptationMode;

  constructor(parts: GatewayAdaptationParts) {
    this.#parts = parts;
    const { settings, limit, database, inventory, reach, associations, heard, clock, entropy, events } =
      parts;
    const allowed = new Set(settings.device.map(({ id }) => id));
    const isAllowed = (deviceId: string) => allowed.has(deviceId);
    const isAttached = (deviceId: string) => isAdapted(inventory, deviceId);
    this.#registrations = new Registrations(database, limit);
    const calls = new LwM2mCalls((...args) => reach.call(...args));
    this.#mode = new AdaptationMode({
      clientOf: (deviceId) => this.#client(deviceId),
      calls,
      updated: parts.updated,
      clock,
      events,
    });
    this.#bootstrapServer = new LwM2mBootstrapServer({
      isAllowed,
      call: (...args) => reach.call(...args),
      calls,
      lifetime: settings.lifetime,
      clock,
      events,
    });
    this.#server = new RegistrationServer({
      registrations: this.#registrations,
      calls,
      isAllowed,
      isAttached,
      // A client that was behind a child gateway may come here; a device of OMA DM is another.
      isOther: (deviceId) => inventory.get(deviceId)?.protocol === 'OMA-DM',
      livesElsewhere: (deviceId, remote) => reach.livesElsewhere(deviceId, remote),
      originOf: (deviceId) =>
        this.#bootstrapServer.has(deviceId) ? 'local' : (inventory.get(deviceId)?.origin ?? 'manual'),
      attached: (device) => associations.attach(device),
      left: (deviceId) => associations.detach(deviceId, 'left'),
      heard: (deviceId, remote) => {
        heard(deviceId, remote);
        this.#mode.heard(deviceId);
      },
      clock,
      entropy,
      events,
    });
  }

  /** @throws {PosternError} `configuration` when clients without security were not allowed by name */
  start(): void {
    const { settings, addresses, events, inventory } = this.#parts;
    if (!settings['insecure-no-security'])
      throw new PosternError(
        'configuration',
        'lwm2m.insecure-no-security: LwM2M clients are served without security only so far, which must be allowed by this key = true',
      );
    events.emit('lwm2m.insecure', { security: lwm2mWarning });
    // They believe that they are registered, and need not come soon.
    for (const { deviceId, address, port } of this.#registrations.values())
      if (isAdapted(inventory, deviceId))
        addresses.heard(deviceId, { address, port, key: remoteKey(address, port) }, true);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using stack = new AsyncDisposableStack();
    stack.use(this.#mode);
    stack.use(this.#server);
    stack.use(this.#bootstrapServer);
  }

  resources(local: LocalEndpoint): Resource[] {
    return [...this.#bootstrapServer.resources(local), ...this.#server.resources(local)];
  }

  get manage(): Manage {
    return this.#mode.manage;
  }

  detached(deviceId: string): void {
    this.#mode.detached(deviceId);
  }

  /** Milliseconds in which a client has to be heard; none for what is no client. */
  expiryOf(deviceId: string): number | undefined {
    const client = this.#client(deviceId);
    return client && client.lifetime * 1000;
  }

  #client(deviceId: string): Registration | undefined {
    return isAdapted(this.#parts.inventory, deviceId) ? this.#registrations.get(deviceId) : undefined;
  }
}

/** Whether a device is attached here in adaptation mode. */
export function isAdapted(inventory: Inventory, deviceId: string): boolean {
  const record = inventory.get(deviceId);
  return record?.mode === GatewayMode.Adaptation && record.via === undefined;
}
