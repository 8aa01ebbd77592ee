import { type Clock, SystemClock } from '../base/clock.ts';
import { openDatabase } from '../base/database.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { EventCounter, type Events } from '../base/events.ts';
import { softwareVersion } from '../base/version.ts';
import { DmError } from '../dm/dm-error.ts';
import type { Operation, OperationOutcome } from '../dm/server-session.ts';
import { DmStatus } from '../dm/status.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import { Nodes } from '../dm/stored-nodes.ts';
import type { ManagementTree } from '../dm/tree.ts';
import type { DeviceRecord, ExpectedDevice } from '../mo/device-record.ts';
import { Accounts, accountsDescription } from '../mo/dm-acc.ts';
import { gwConfig } from '../mo/gw-config.ts';
import { vocabularyOf } from '../mo/vocabulary.ts';
import type { Remote } from '../wire/coap/message.ts';
import { paths } from '../wire/resources.ts';
import { encodings } from '../wire/syncml/codec.ts';
import type { GatewayConfig } from './config.ts';
import { GatewayFirmware } from './firmware.ts';
import { GatewayAdaptation, isAdapted, lwm2mWarning } from './lwm2m.ts';
import { Delegation } from './modes/delegation.ts';
import { ProxyMode } from './modes/proxy.ts';
import { TransparentMode } from './modes/transparent.ts';
import type { Manage } from './modes/waiting-work.ts';
import { networkOf } from './network.ts';
import { DmClient, type ResultBody, type resultAlerts } from './northbound/dm-client.ts';
import type { Uplink } from './northbound/uplink.ts';
import { GatewayObjects } from './objects.ts';
import { expectedDevices, imageSettings, knowManualDevices } from './settings.ts';
import { Associations } from './southbound/associations.ts';
import { Children } from './southbound/children.ts';
import type { CoapNetwork } from './southbound/coap-network.ts';
import { DeviceAddresses } from './southbound/device-addresses.ts';
import { DeviceSessions } from './southbound/device-sessions.ts';
import type { HttpBinding } from './southbound/http-binding.ts';
import type { ListInterfaces } from './southbound/interfaces.ts';
import { Reach } from './southbound/reach.ts';
import { UplinkStatus } from './southbound/uplink-status.ts';
import { freeMemory, type GatewayStatus, memoryInUse, plainWarning } from './status.ts';
import { Credentials } from './store/credentials.ts';
import { Inventory } from './store/inventory.ts';
import { Outbox } from './store/outbox.ts';
import { gatewaySchema } from './store/schema.ts';
import { gatewayTree, knowServer } from './tree.ts';
import { uplinkOf } from './uplink.ts';

/** What surrounds a gateway; the machine's own by default. */
export interface GatewaySurroundings {
  readonly events: Events;
  readonly clock?: Clock;
  readonly entropy?: Entropy;
  readonly listInterfaces?: ListInterfaces;
  /** Ends this process so that it is started again by the boot state; for slots that are directories. */
  readonly restart?: () => void;
}

/** The composition root of the gateway: a checked configuration in, a running gateway out. */
export class Gateway implements AsyncDisposable {
  readonly #config: GatewayConfig;
  readonly #events: EventCounter;
  readonly #database: ReturnType<typeof openDatabase>;
  readonly #inventory: Inventory;
  readonly #credentials: Credentials;
  readonly #outbox: Outbox;
  readonly #gwConfig: StoredBranch;
  readonly #addresses = new DeviceAddresses();
  readonly #network: CoapNetwork;
  readonly #reach: Reach;
  readonly #sessions: DeviceSessions;
  readonly #transparent: TransparentMode;
  readonly #http: HttpBinding | undefined;
  readonly #proxy: ProxyMode;
  readonly #adaptation: GatewayAdaptation | undefined;
  readonly #associations: Associations;
  readonly #objects: GatewayObjects;
  readonly #firmware: GatewayFirmware | undefined;
  readonly #tree: ManagementTree;
  readonly #uplink: Uplink;
  /** The DM server that hears of devices: the parent gateway, where there is one. */
  readonly #ownServer: string;
  readonly #dmClient: DmClient;
  #disposed = false;

  /** @throws {PosternError} `configuration` when the state cannot be opened */
  constructor(config: GatewayConfig, surroundings: GatewaySurroundings) {
    const { clock = new SystemClock(), entropy = systemEntropy, listInterfaces } = surroundings;
    const gatewayId = config.gateway.id;
    const events = new EventCounter(surroundings.events);
    this.#config = config;
    this.#ownServer = config.parent?.id ?? config['dm-server'].id;
    this.#events = events;
    this.#database = openDatabase(config.gateway.state, gatewaySchema);
    this.#inventory = new Inventory(this.#database, config.limits.devices);
    this.#credentials = new Credentials(this.#database, config.limits.devices);
    this.#outbox = new Outbox(this.#database, config.limits.outbox);

    this.#reach = new Reach({
      network: () => this.#network,
      addresses: this.#addresses,
      inventory: this.#inventory,
      entropy,
    });
    const nodes = new Nodes(this.#database);
    const accounts = new Accounts(new StoredBranch('DMAcc', accountsDescription, nodes, { clock }));
    const vocabulary = vocabularyOf(config.gwmo);
    this.#gwConfig = new StoredBranch('GwConfig', gwConfig.root, nodes, {
      type: vocabulary.objects.GwConfig,
      clock,
    });
    this.#associations = new Associations({
      database: this.#database,
      inventory: this.#inventory,
      credentials: this.#credentials,
      outbox: this.#outbox,
      gwConfig: this.#gwConfig,
      clock,
      events,
      expiryOf: (deviceId) => this.#adaptation?.expiryOf(deviceId) ?? config.limits['device-expiry'] * 1000,
      isAlive: (deviceId) => this.#reach.isAlive(deviceId),
      reported: () => this.#dmClient.wake(),
      gone: (deviceId) => {
        this.#proxy.detached(deviceId);
        this.#adaptation?.detached(deviceId);
        this.#sessions.detached(deviceId);
      },
    });
    const delegation = new Delegation({
      manage: (...args) => this.#proxy.manage(...args),
      vocabulary,
      clock,
      entropy,
    });
    const children = new Children({
      gatewayId,
      vocabulary,
      associations: this.#associations,
      events,
      fanoutEnded: (...args) => delegation.reported(...args),
    });
    const mayBeGateway = new Set(config.bootstrap.device.flatMap(({ id, gateway }) => (gateway ? [id] : [])));
    const objects = new GatewayObjects({
      vocabulary,
      database: this.#database,
      nodes,
      inventory: this.#inventory,
      expected: expectedDevices(this.#credentials, {
        add: (device) => this.#expect(device),
        addressFor: (deviceId) => this.#reach.uriFor(deviceId, paths.sessions),
      }),
      remove: (deviceId) => this.#associations.remove(deviceId),
      clock,
      entropy,
      events,
      images: imageSettings(config),
      permits: (path, server) => this.#tree.permits(path, 'Exec', server),
      manage: this.#manage,
      deliver: (...args) => this.#deliver(...args),
      uriFor: (deviceId, path) => this.#reach.uriFor(deviceId, path),
      delegate: (...args) => delegation.run(...args),
      ended: (kind, uri, operation, result) => this.#report(kind, uri, operation, result),
    });
    this.#objects = objects;
    this.#firmware =
      config.update &&
      new GatewayFirmware({
        settings: config.update,
        stateFile: config.gateway.state,
        database: this.#database,
        nodes,
        inventory: this.#inventory,
        imageFile: (name) => objects.images.file(name),
        port: () => this.#network.port,
        isConnected: () => this.#uplink.connected,
        ended: (server, operation, body) => {
          this.#outbox.add('firmware-update', operation, JSON.stringify(body), this.#toServer(server));
          this.#dmClient.wake();
        },
        ...(surroundings.restart && { restart: surroundings.restart }),
        clock,
        entropy,
        events,
      });
    this.#tree = gatewayTree({
      config,
      database: this.#database,
      accounts,
      gwConfig: this.#gwConfig,
      vocabulary,
      objects: objects.branches,
      firmware: this.#firmware,
    });
    knowServer(accounts, config);

    this.#transparent = new TransparentMode({
      gatewayId,
      childOf: (deviceId) => this.#reach.childOf(deviceId),
      servers: config.tunnel.servers ?? [config['dm-server'].id],
      upstream: { request: (request) => this.#uplink.request(request) },
      addresses: this.#addresses,
      towards: (address) => this.#network.towards(address),
      entropy,
      events,
    });
    const uplinkStatus = new UplinkStatus(clock, () => this.#uplink.connected);
    this.#proxy = new ProxyMode({
      gatewayId,
      credentials: this.#credentials,
      reach: (deviceId, package0) => this.#transparent.deliver(deviceId, gatewayId, package0),
      isReachable: (deviceId) => this.#addresses.get(deviceId) !== undefined,
      clock,
      entropy,
    });
    const { uplink, notifications } = uplinkOf({
      config,
      accounts,
      call: (...args) => this.#reach.call(...args),
      notified: (...args) => this.#notified(...args),
      connected: () => {
        // To a parent this gateway is a device, which shows itself; the DM server hears when there is something to tell.
        if (config.parent) this.#dmClient.contact(this.#ownServer);
        else this.#dmClient.wake();
        uplinkStatus.changed();
      },
      disconnected: () => uplinkStatus.changed(),
      clock,
      entropy,
      events,
    });
    this.#uplink = uplink;
    this.#dmClient = new DmClient({
      gatewayId,
      serverId: this.#ownServer,
      mediaType: encodings[config['dm-server'].encoding],
      accounts,
      tree: this.#tree,
      outbox: this.#outbox,
      vocabulary,
      upstream: this.#uplink,
      clock,
      entropy,
      events,
    });
    const schemes = knowManualDevices(config.http?.device ?? [], this.#credentials);
    this.#sessions = new DeviceSessions({
      gatewayId,
      credentials: this.#credentials,
      clock,
      entropy,
      events,
      attached: (device) => this.#associations.attach(device),
      left: (deviceId) => this.#associations.detach(deviceId, 'left'),
      alerted: (deviceId, alert) =>
        (mayBeGateway.has(deviceId) ? children.alerted(deviceId, alert) : undefined) ??
        this.#objects.alerted(deviceId, alert),
      mayBeGateway: (deviceId) => mayBeGateway.has(deviceId),
      vocabulary,
      proved: (deviceId, remote) => this.#heard(deviceId, remote),
      schemesOf: (deviceId) => schemes.get(deviceId),
      work: (deviceId) => this.#proxy.work(deviceId),
    });
    this.#adaptation =
      config.lwm2m &&
      new GatewayAdaptation({
        settings: config.lwm2m,
        limit: config.limits.devices,
        database: this.#database,
        inventory: this.#inventory,
        addresses: this.#addresses,
        reach: this.#reach,
        associations: this.#associations,
        heard: (deviceId, remote) => this.#heard(deviceId, remote),
        updated: (...args) => this.#objects.updated(...args),
        clock,
        entropy,
        events,
      });
    const { network, http } = networkOf({
      config,
      credentials: this.#credentials,
      reach: this.#reach,
      sessions: this.#sessions,
      transparent: this.#transparent,
      adaptation: this.#adaptation,
      resources: (local) => [uplinkStatus.resource(local), ...(notifications ? [notifications] : [])],
      image: (name) => objects.images.ready(name),
      clock,
      entropy,
      events,
      ...(listInterfaces && { listInterfaces }),
    });
    this.#network = network;
    this.#http = http;
  }

  /** URL of the HTTP binding, where it is on. */
  get httpUrl(): string | undefined {
    return this.#http?.url;
  }

  get coapPort(): number {
    return this.#network.port;
  }

  /** @throws {PosternError} `configuration` when the port is taken, or plain CoAP was not allowed */
  async start(): Promise<void> {
    if (!this.#config.coap['insecure-plain-coap'])
      throw new PosternError(
        'configuration',
        'coap.insecure-plain-coap: devices are served over plain CoAP only so far, which must be allowed by this key = true',
      );
    this.#events.emit('coap.insecure', { security: plainWarning });
    this.#adaptation?.start();
    this.#associations.start();
    await this.#network.start();
    await this.#http?.start();
    this.#objects.resume();
    this.#events.emit('gateway.started', {
      gateway: this.#config.gateway.id,
      port: this.#network.port,
      devices: this.#inventory.size,
      rss: memoryInUse().rss,
      free: freeMemory(),
    });
    this.#uplink.start();
    this.#firmware?.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await using stack = new AsyncDisposableStack();
    stack.defer(() => this.#database.close());
    // From the last to the first: what waits for the uplink ends when the uplink does.
    stack.use(this.#dmClient);
    stack.use(this.#uplink);
    stack.use(this.#objects);
    if (this.#firmware) stack.use(this.#firmware);
    stack.use(this.#associations);
    stack.use(this.#network);
    if (this.#adaptation) stack.use(this.#adaptation);
    if (this.#http) stack.use(this.#http);
    stack.defer(() => this.#sessions.stop());
    this.#events.emit('gateway.stopping', { gateway: this.#config.gateway.id });
  }

  status(): GatewayStatus {
    const { gateway, limits } = this.#config;
    return {
      gateway: gateway.id,
      software: softwareVersion,
      uplink: {
        connected: this.#uplink.connected,
        ...this.#uplink.description,
      },
      coap: {
        port: this.#network.port,
        addresses: this.#network.addresses.map(({ address }) => address),
        security: this.#adaptation ? `${plainWarning}; ${lwm2mWarning}` : plainWarning,
      },
      devices: {
        attached: this.#inventory.size,
        limit: limits.devices,
      },
      outbox: { waiting: this.#outbox.size, limit: limits.outbox, dropped: this.#outbox.dropped },
      sessions: this.#sessions.size,
      memory: memoryInUse(),
      counts: Object.fromEntries([...this.#events.counts].toSorted()),
    };
  }

  /**
   * How the gateway itself is updated.
   * @throws {PosternError} `notAllowed` without slots
   */
  get firmware(): GatewayFirmware {
    if (!this.#firmware)
      throw new PosternError(
        'notAllowed',
        'this gateway has no slots: see the table update of its configuration',
      );
    return this.#firmware;
  }

  devices(): readonly DeviceRecord[] {
    return [...this.#inventory.values()];
  }

  /**
   * Does operations on a device, with the gateway as its DM server: in the session that it opens next, which a Package #0
   * asks for where the device can be reached.
   * @throws {PosternError} `notFound` for a device without an account here, `timeout`, `full`, or why its session failed
   */
  async manage(
    deviceId: string,
    operations: readonly Operation[],
    timeout: number,
  ): Promise<readonly OperationOutcome[]> {
    return await this.#manage(deviceId, operations, { timeout });
  }

  /** In proxy mode, or in adaptation mode where the device speaks no OMA DM. */
  readonly #manage: Manage = (deviceId, ...rest) => {
    const adaptation = isAdapted(this.#inventory, deviceId) ? this.#adaptation : undefined;
    return (adaptation ?? this.#proxy).manage(deviceId, ...rest);
  };

  async #deliver(deviceId: string, server: string, package0: Uint8Array): Promise<void> {
    if (isAdapted(this.#inventory, deviceId))
      throw new DmError(DmStatus.OptionalFeatureNotSupported, `${deviceId} opens no DM sessions`);
    await this.#transparent.deliver(deviceId, server, package0);
  }

  #heard(deviceId: string, remote: Remote): void {
    this.#addresses.heard(deviceId, remote, true);
    this.#associations.heard(deviceId);
    this.#objects.heard(deviceId);
  }

  async #notified(deviceId: string | undefined, server: string, package0: Uint8Array): Promise<void> {
    if (deviceId === undefined) this.#dmClient.notified(package0);
    else await this.#deliver(deviceId, server, package0);
  }

  /** What an Exec of a DM server came to goes to that server. */
  #report(
    kind: keyof typeof resultAlerts,
    uri: string,
    { name, server, correlator }: { name: string; server: string; correlator: string | undefined },
    result: string,
  ): void {
    const body: ResultBody = { uri, result, ...(correlator !== undefined && { correlator }) };
    this.#outbox.add(kind, name, JSON.stringify(body), this.#toServer(server));
    this.#dmClient.wake();
  }

  /** In the outbox the gateway's own server has no name. */
  #toServer(server: string): string | undefined {
    return server === this.#ownServer ? undefined : server;
  }

  /** The DM server bootstraps a device to this gateway (GwMO section 8.4.1). */
  #expect(device: ExpectedDevice): void {
    this.#credentials.put({ ...device, origin: 'server', attached: false });
    this.#events.emit('device.expected', { device: device.deviceId });
  }
}
