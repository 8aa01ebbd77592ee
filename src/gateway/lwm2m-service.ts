import { background } from '../base/background.ts';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import type { Remote } from '../wire/coap/message.ts';
import type { Resource } from '../wire/coap/router.ts';
import { ObjectId } from '../wire/lwm2m/objects.ts';
import type { GatewayConfig } from './config.ts';
import type { DeviceListener, DeviceSignals } from './device-signals.ts';
import type { LiveSettings } from './live-settings.ts';
import { AdaptationMode, type AdaptationModeParts } from './modes/adaptation.ts';
import { isAdapted } from './modes/device-management.ts';
import type { Manage } from './modes/waiting-work.ts';
import type { Arrivals } from './southbound/arrivals.ts';
import type { Associations } from './southbound/associations.ts';
import { ClientIdentity } from './southbound/client-identity.ts';
import type { LocalEndpoint } from './southbound/coap-network.ts';
import type { DeviceAddresses, PeerAddress } from './southbound/device-addresses.ts';
import type { DeviceLocator } from './southbound/device-locator.ts';
import type { Joins } from './southbound/joins.ts';
import { type LwM2mBootstrapParts, LwM2mBootstrapServer } from './southbound/lwm2m-bootstrap-server.ts';
import { LwM2mCalls, type LwM2mClient } from './southbound/lwm2m-calls.ts';
import { LwM2mObserver } from './southbound/lwm2m-observer.ts';
import { LwM2mReporting } from './southbound/lwm2m-reporting.ts';
import type { Observer } from './southbound/observer.ts';
import { type Finding, lifetimeOf, missing } from './southbound/presence.ts';
import { describe } from './southbound/registration-proof.ts';
import { RegistrationServer } from './southbound/registration-server.ts';
import { sendResource } from './southbound/send-resource.ts';
import type { GatewayState } from './state.ts';
import type { DeviceKeys } from './store/device-keys.ts';
import type { Inventory } from './store/inventory.ts';
import type { Registrations } from './store/registrations.ts';

export interface Lwm2mServiceParts {
  readonly settings: NonNullable<GatewayConfig['lwm2m']>;
  readonly live: LiveSettings;
  readonly registrations: Registrations;
  readonly inventory: Inventory;
  readonly addresses: DeviceAddresses;
  readonly locator: DeviceLocator;
  readonly arrivals: Arrivals;
  readonly associations: Associations;
  readonly keys: DeviceKeys;
  readonly oscoreUri: LwM2mBootstrapParts['oscoreUri'];
  readonly imageAt: AdaptationModeParts['imageAt'];
  readonly httpUriOf: AdaptationModeParts['httpUriOf'];
  readonly updates: AdaptationModeParts['updates'];
  readonly signals: DeviceSignals;
  readonly joins: Joins;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Milliseconds within which the earlier address of a client must answer a CoAP ping. */
const pingTimeout = 2000;
/** Milliseconds of silence after which a client that cannot prove itself has lost its name, also if its lifetime is longer. */
const nameHeldFor = 86_400_000;

/** What log and `postern status` say of LwM2M clients for now. */
export const lwm2mWarning =
  'LwM2M clients prove nothing; anyone who knows an endpoint name can take its place';

/** What a gateway has for devices that speak LwM2M: bootstrap server, registration server, adaptation mode. */
export class Lwm2mService implements AsyncDisposable, DeviceListener {
  readonly #parts: Lwm2mServiceParts;
  readonly #server: RegistrationServer;
  readonly #bootstrapServer: LwM2mBootstrapServer;
  readonly #mode: AdaptationMode;
  readonly #identity: ClientIdentity;
  readonly #calls: LwM2mCalls;
  readonly #stop = new AbortController();
  readonly #observer: LwM2mObserver;
  readonly #send: Resource;

  constructor(parts: Lwm2mServiceParts) {
    this.#parts = parts;
    const { settings, live, registrations, inventory, addresses, locator, arrivals } = parts;
    const { associations, signals, joins, clock, entropy, events } = parts;
    // Who has a key, or has proved its name once, is served by that alone. Otherwise anyone could take the place of such a client without one.
    const isKeyed = (deviceId: string) =>
      live.current.keyed.has(deviceId) ||
      parts.keys.of(deviceId).length > 0 ||
      registrations.proven.has(deviceId);
    const isAllowed = (deviceId: string, { identity }: Remote) =>
      live.current.clients.has(deviceId) && (identity !== undefined || !isKeyed(deviceId));
    const isJoined = (deviceId: string, remote: Remote) => joins.isJoined(deviceId, 'LwM2M', remote);
    const isAttached = (deviceId: string) => isAdapted(inventory, deviceId, 'LwM2M');
    const call: DeviceLocator['call'] = (...args) => locator.call(...args);
    // Whoever has a key is asked by it alone. At its address somebody else may answer in clear.
    const partyOf = ({ deviceId, keyed }: LwM2mClient) =>
      keyed || isKeyed(deviceId) || joins.has(deviceId, 'LwM2M') ? deviceId : undefined;
    const calls = new LwM2mCalls(call, undefined, partyOf);
    this.#identity = new ClientIdentity({
      registrations,
      inventory,
      addresses,
      arrivals,
      isInReach: (client) => locator.isInReach(client),
      uriOf: (client) => locator.uriOf(client, client.deviceId),
      isSafe: (client) => partyOf(client) === undefined || locator.isProtected(client, client.deviceId),
      calls,
      heard: (deviceId, from) => signals.heard(deviceId, from),
      found: (deviceId, finding) => signals.found(deviceId, finding),
      clock,
    });
    const guarded = new LwM2mCalls(call, this.#identity, partyOf);
    this.#calls = guarded;
    const reporting = new LwM2mReporting(guarded);
    const values: Observer['values'] = (...sent) => signals.valued(...sent);
    const heard = (deviceId: string, from: PeerAddress) => signals.heard(deviceId, from);
    this.#observer = new LwM2mObserver({
      clientOf: (deviceId) => clientOf(registrations, inventory, deviceId),
      arrivals,
      reporting,
      values,
      heard,
      clock,
      entropy,
      events,
    });
    this.#mode = new AdaptationMode({
      clientOf: (deviceId) => clientOf(registrations, inventory, deviceId),
      lastHeard: (deviceId) => arrivals.lastOf(deviceId),
      isThere: (...args) => this.#identity.isThere(...args),
      calls: guarded,
      updated: (...args) => signals.updateEnded(...args),
      succeeded: (deviceId) =>
        void background(events, 'lwm2m-update', () => this.#describeAnew(deviceId), this.#stop.signal),
      imageAt: parts.imageAt,
      httpUriOf: parts.httpUriOf,
      updates: parts.updates,
      clock,
      events,
    });
    this.#bootstrapServer = new LwM2mBootstrapServer({
      isAllowed,
      isJoined,
      call,
      calls,
      lifetime: settings.lifetime,
      keys: parts.keys,
      isForOscore: (deviceId) => live.current.oscoreDevices.has(deviceId),
      oscoreUri: parts.oscoreUri,
      tryDisk: () => registrations.tryDisk(),
      entropy,
      clock,
      events,
    });
    this.#server = new RegistrationServer({
      registrations,
      calls,
      isAllowed,
      isJoined: (deviceId, remote) => {
        const isIn = isJoined(deviceId, remote);
        if (isIn) joins.settle(remote);
        return isIn;
      },
      isServed: (deviceId) => live.current.clients.has(deviceId) || joins.has(deviceId, 'LwM2M'),
      isAttached,
      deviceAt: (remote) => (locator.isUnsure(remote) ? undefined : addresses.deviceAt(remote)),
      // A client that was behind a child gateway may come here; a device of OMA DM is another.
      isOther: (deviceId) => inventory.get(deviceId)?.protocol === 'OMA-DM',
      livesElsewhere: (deviceId, remote) => this.#livesElsewhere(deviceId, remote),
      originOf: (deviceId) =>
        joins.has(deviceId, 'LwM2M')
          ? 'joined'
          : this.#bootstrapServer.has(deviceId)
            ? 'local'
            : (inventory.get(deviceId)?.origin ?? 'manual'),
      attached: (device) => associations.attach(device),
      left: (deviceId) => associations.detach(deviceId, 'left'),
      heard,
      clock,
      entropy,
      events,
    });
    this.#send = sendResource({
      senderOf: (remote) => this.#server.senderOf(remote),
      isAwaited: (remote) => this.#server.isAwaited(remote),
      values,
      heard,
      clock,
      events,
    });
  }

  start(): void {
    const { registrations, addresses, events, inventory, settings } = this.#parts;
    if (settings['insecure-no-security']) events.emit('lwm2m.insecure', { security: lwm2mWarning });
    // The clients assume that they are still registered, and need not come soon. The address in a registration is newer
    // than the one in the inventory.
    for (const registration of registrations.values())
      if (isAdapted(inventory, registration.deviceId, 'LwM2M'))
        addresses.heard(registration.deviceId, registration, true);
  }

  /** Goes on with updates, as `AdaptationMode.resume`. To be called when those who wait for their results are there. */
  resume(awaited: readonly string[]): void {
    this.#mode.resume(awaited);
  }

  /** Reads what a client says of itself after an update. One that does not reboot does not register anew. */
  async #describeAnew(deviceId: string): Promise<void> {
    const { registrations, inventory, associations } = this.#parts;
    const client = clientOf(registrations, inventory, deviceId);
    if (!client) return;
    const device = await this.#calls
      .read(client, [ObjectId.Device, 0], this.#stop.signal)
      .catch(() => undefined);
    const record = inventory.get(deviceId);
    if (!device || !record || this.#stop.signal.aborted || !isAdapted(inventory, deviceId, 'LwM2M')) return;
    associations.attach({ ...record, ...describe(device) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await using stack = new AsyncDisposableStack();
    stack.use(this.#observer);
    stack.use(this.#mode);
    stack.use(this.#server);
    stack.use(this.#bootstrapServer);
  }

  resources(local: LocalEndpoint): Resource[] {
    return [...this.#bootstrapServer.resources(local), ...this.#server.resources(local), this.#send];
  }

  get observer(): Observer {
    return this.#observer;
  }

  get manage(): Manage {
    return this.#mode.manage;
  }

  /** Asks a client to prove itself. Never rejects. */
  async ask(deviceId: string): Promise<Finding> {
    const { registrations, inventory, arrivals, clock } = this.#parts;
    const client = clientOf(registrations, inventory, deviceId);
    if (!client) return missing('it is not registered here');
    const finding = await this.#identity.prove(deviceId);
    const isLate = clock.now() - arrivals.lastOf(deviceId) > lifetimeOf(client.lifetime);
    return finding.kind === 'unproven' && isLate
      ? missing(`its registration lifetime of ${client.lifetime} s passed without an update`)
      : finding;
  }

  /**
   * Whether an attached client with this name is at an address other than `remote`. A client that cannot prove itself when
   * it is asked keeps its name until its lifetime has passed without a message from it.
   */
  async #livesElsewhere(deviceId: string, { address, port }: Remote): Promise<boolean> {
    const { registrations, inventory, locator, arrivals, clock } = this.#parts;
    const elsewhere = () => {
      const client = clientOf(registrations, inventory, deviceId);
      return client && (client.address !== address || client.port !== port) ? client : undefined;
    };
    const client = elsewhere();
    if (!client || !(await locator.answers(client, pingTimeout))) return false;
    const { kind } = await this.#identity.prove(deviceId, 'duplicate');
    // The client may have shown that it is here.
    if (!elsewhere()) return false;
    if (kind === 'unproven')
      return clock.now() - arrivals.lastOf(deviceId) <= Math.min(lifetimeOf(client.lifetime), nameHeldFor);
    return kind === 'proven';
  }

  heard(deviceId: string): void {
    if (!isAdapted(this.#parts.inventory, deviceId, 'LwM2M')) return;
    this.#mode.heard(deviceId);
    this.#observer.heard(deviceId);
  }

  detached(deviceId: string): void {
    this.#mode.detached(deviceId);
    this.#observer.detached(deviceId);
  }
}

/** The registration of a client that is attached here. */
const clientOf = (registrations: Registrations, inventory: Inventory, deviceId: string) =>
  isAdapted(inventory, deviceId, 'LwM2M') ? registrations.get(deviceId) : undefined;

/** What other parts need of the registration of an LwM2M client that is attached here. The lifetime is in seconds. */
export function registrationOf({ registrations, inventory }: GatewayState, deviceId: string) {
  const client = registrations && clientOf(registrations, inventory, deviceId);
  if (!client) return undefined;
  const { version, lifetime, binding, queueMode } = client;
  return { version, lifetime, binding, queueMode };
}
