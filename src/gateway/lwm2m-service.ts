import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { remoteKey } from '../wire/coap/peer.ts';
import type { Resource } from '../wire/coap/router.ts';
import type { GatewayConfig } from './config.ts';
import type { DeviceListener, DeviceSignals } from './device-signals.ts';
import type { LiveSettings } from './live-settings.ts';
import { AdaptationMode } from './modes/adaptation.ts';
import { isAdapted } from './modes/device-management.ts';
import type { Manage } from './modes/waiting-work.ts';
import type { Associations } from './southbound/associations.ts';
import type { LocalEndpoint } from './southbound/coap-network.ts';
import type { DeviceAddresses } from './southbound/device-addresses.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import { LwM2mBootstrapServer } from './southbound/lwm2m-bootstrap-server.ts';
import { LwM2mCalls } from './southbound/lwm2m-calls.ts';
import { RegistrationServer } from './southbound/registration-server.ts';
import type { GatewayState } from './state.ts';
import type { Inventory } from './store/inventory.ts';
import type { Registrations } from './store/registrations.ts';

export interface Lwm2mServiceParts {
  readonly settings: NonNullable<GatewayConfig['lwm2m']>;
  readonly live: LiveSettings;
  readonly registrations: Registrations;
  readonly inventory: Inventory;
  readonly addresses: DeviceAddresses;
  readonly locator: DeviceLocator;
  readonly associations: Associations;
  readonly signals: DeviceSignals;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** What log and `postern status` say of LwM2M clients for now. */
export const lwm2mWarning = 'LwM2M clients prove nothing; who knows an endpoint name can take its place';

/** What a gateway has for devices that speak LwM2M: bootstrap server, registration server, adaptation mode. */
export class Lwm2mService implements AsyncDisposable, DeviceListener {
  readonly #parts: Lwm2mServiceParts;
  readonly #server: RegistrationServer;
  readonly #bootstrapServer: LwM2mBootstrapServer;
  readonly #mode: AdaptationMode;

  constructor(parts: Lwm2mServiceParts) {
    this.#parts = parts;
    const { settings, live, registrations, inventory, locator, associations, signals } = parts;
    const { clock, entropy, events } = parts;
    const isAllowed = (deviceId: string) => live.current.clients.has(deviceId);
    const isAttached = (deviceId: string) => isAdapted(inventory, deviceId);
    const calls = new LwM2mCalls((...args) => locator.call(...args));
    this.#mode = new AdaptationMode({
      clientOf: (deviceId) => clientOf(registrations, inventory, deviceId),
      calls,
      updated: (...args) => signals.updateEnded(...args),
      clock,
      events,
    });
    this.#bootstrapServer = new LwM2mBootstrapServer({
      isAllowed,
      call: (...args) => locator.call(...args),
      calls,
      lifetime: settings.lifetime,
      clock,
      events,
    });
    this.#server = new RegistrationServer({
      registrations,
      calls,
      isAllowed,
      isAttached,
      // A client that was behind a child gateway may come here; a device of OMA DM is another.
      isOther: (deviceId) => inventory.get(deviceId)?.protocol === 'OMA-DM',
      livesElsewhere: (deviceId, remote) => locator.livesElsewhere(deviceId, remote),
      originOf: (deviceId) =>
        this.#bootstrapServer.has(deviceId) ? 'local' : (inventory.get(deviceId)?.origin ?? 'manual'),
      attached: (device) => associations.attach(device),
      left: (deviceId) => associations.detach(deviceId, 'left'),
      heard: (deviceId, remote) => signals.heard(deviceId, remote),
      clock,
      entropy,
      events,
    });
  }

  /** @throws {PosternError} `configuration` when clients without security were not allowed by name */
  start(): void {
    const { settings, registrations, addresses, events, inventory } = this.#parts;
    if (!settings['insecure-no-security'])
      throw new PosternError(
        'configuration',
        'lwm2m.insecure-no-security: LwM2M clients are served without security only so far, which must be allowed by this key = true',
      );
    events.emit('lwm2m.insecure', { security: lwm2mWarning });
    // They believe that they are registered, and need not come soon.
    for (const { deviceId, address, port } of registrations.values())
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

  heard(deviceId: string): void {
    if (isAdapted(this.#parts.inventory, deviceId)) this.#mode.heard(deviceId);
  }

  detached(deviceId: string): void {
    this.#mode.detached(deviceId);
  }
}

/** The registration of a client that is attached here. */
const clientOf = (registrations: Registrations, inventory: Inventory, deviceId: string) =>
  isAdapted(inventory, deviceId) ? registrations.get(deviceId) : undefined;

/** Milliseconds within which an LwM2M client must be heard; undefined for a device that is no LwM2M client. */
export function lifetimeOf({ registrations, inventory }: GatewayState, deviceId: string): number | undefined {
  const client = registrations && clientOf(registrations, inventory, deviceId);
  return client && client.lifetime * 1000;
}
