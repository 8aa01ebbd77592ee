import { type Clock, SystemClock } from './base/clock.ts';
import { type Entropy, systemEntropy } from './base/entropy.ts';
import { PosternError } from './base/errors.ts';
import { EventCounter, type Events } from './base/events.ts';
import { softwareVersion } from './base/version.ts';
import { Blockwise } from './coap/blockwise.ts';
import { EchoGuard } from './coap/echo.ts';
import type { Remote } from './coap/message.ts';
import { Router } from './coap/router.ts';
import { coapUri } from './coap/uri.ts';
import type { Operation, OperationOutcome } from './dm/server-session.ts';
import { StoredBranch } from './dm/stored-branch.ts';
import type { ManagementTree } from './dm/tree.ts';
import type { GatewayConfig } from './gateway-config.ts';
import { GatewayObjects } from './gateway-objects.ts';
import {
  expectedDevices,
  httpSettings,
  imageSettings,
  knowManualDevices,
  mqttSettings,
} from './gateway-settings.ts';
import { gatewayTree, knowServer } from './gateway-tree.ts';
import { Accounts, accountsDescription } from './mo/dm-acc.ts';
import { gwConfig } from './mo/gw-config.ts';
import { vocabularyOf } from './mo/vocabulary.ts';
import { ProxyMode } from './modes/proxy.ts';
import { TransparentMode } from './modes/transparent.ts';
import { DmClient, type ResultBody, type resultAlerts } from './northbound/dm-client.ts';
import { Upstream } from './northbound/upstream.ts';
import { Associations } from './southbound/associations.ts';
import { BootstrapServer } from './southbound/bootstrap-server.ts';
import { CoapNetwork } from './southbound/coap-network.ts';
import { DeviceAddresses } from './southbound/device-addresses.ts';
import { DeviceSessions } from './southbound/device-sessions.ts';
import { HttpBinding } from './southbound/http-binding.ts';
import { imageResource } from './southbound/image-resource.ts';
import type { ListInterfaces } from './southbound/interfaces.ts';
import { paths } from './southbound/resources.ts';
import { UplinkStatus } from './southbound/uplink-status.ts';
import { Credentials, type ExpectedDevice } from './store/credentials.ts';
import { openDatabase } from './store/database.ts';
import { type DeviceRecord, Inventory } from './store/inventory.ts';
import { Nodes } from './store/nodes.ts';
import { Outbox } from './store/outbox.ts';
import { encodings } from './syncml/codec.ts';

/** What surrounds a gateway; the machine's own by default. */
export interface GatewaySurroundings {
  readonly events: Events;
  readonly clock?: Clock;
  readonly entropy?: Entropy;
  readonly listInterfaces?: ListInterfaces;
}

export interface GatewayStatus {
  readonly gateway: string;
  readonly software: string;
  readonly uplink: { readonly connected: boolean; readonly url: string; readonly mqtt: string };
  readonly coap: { readonly port: number; readonly addresses: readonly string[]; readonly security: string };
  readonly devices: { readonly attached: number; readonly limit: number };
  readonly outbox: { readonly waiting: number; readonly limit: number; readonly dropped: number };
  readonly sessions: number;
  /** How often each event happened since the start. */
  readonly counts: Readonly<Record<string, number>>;
}

/** Milliseconds in which a device must answer to count as alive at its old address. */
const livenessTimeout = 2000;

const plainWarning = 'none: plain CoAP; anyone on the private network can read and change what is said';

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
  readonly #sessions: DeviceSessions;
  readonly #transparent: TransparentMode;
  readonly #http: HttpBinding | undefined;
  readonly #proxy: ProxyMode;
  readonly #associations: Associations;
  readonly #objects: GatewayObjects;
  readonly #tree: ManagementTree;
  readonly #upstream: Upstream;
  readonly #dmClient: DmClient;
  #disposed = false;

  /** @throws {PosternError} `configuration` when the state cannot be opened */
  constructor(config: GatewayConfig, surroundings: GatewaySurroundings) {
    const { clock = new SystemClock(), entropy = systemEntropy, listInterfaces } = surroundings;
    const gatewayId = config.gateway.id;
    const events = new EventCounter(surroundings.events);
    this.#config = config;
    this.#events = events;
    this.#database = openDatabase(config.gateway.state);
    this.#inventory = new Inventory(this.#database, config.limits.devices);
    this.#credentials = new Credentials(this.#database, config.limits.devices);
    this.#outbox = new Outbox(this.#database, config.limits.outbox);

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
      expiry: config.limits['device-expiry'] * 1000,
      isAlive: (deviceId) => this.#isAlive(deviceId),
      reported: () => this.#dmClient.wake(),
    });
    const objects = new GatewayObjects({
      vocabulary,
      database: this.#database,
      nodes,
      inventory: this.#inventory,
      expected: expectedDevices(this.#credentials, {
        add: (device) => this.#expect(device),
        addressFor: (deviceId) => this.#uriFor(deviceId, paths.sessions),
      }),
      remove: (deviceId) => this.#associations.remove(deviceId),
      clock,
      entropy,
      events,
      images: imageSettings(config),
      permits: (path, server) => this.#tree.permits(path, 'Exec', server),
      manage: (...args) => this.#proxy.manage(...args),
      deliver: (...args) => this.#transparent.deliver(...args),
      uriFor: (deviceId, path) => this.#uriFor(deviceId, path),
      delegate: async () => [],
      ended: (kind, uri, operation, result) => this.#report(kind, uri, operation, result),
    });
    this.#objects = objects;
    this.#tree = gatewayTree({
      config,
      database: this.#database,
      accounts,
      gwConfig: this.#gwConfig,
      vocabulary,
      objects: objects.branches,
    });
    knowServer(accounts, config);

    this.#transparent = new TransparentMode({
      servers: config.tunnel.servers ?? [config['dm-server'].id],
      upstream: { request: (request) => this.#upstream.request(request) },
      addresses: this.#addresses,
      towards: (address) => this.#network.towards(address),
      entropy,
      events,
    });
    const uplinkStatus = new UplinkStatus(clock, () => this.#upstream.connected);
    this.#proxy = new ProxyMode({
      gatewayId,
      credentials: this.#credentials,
      reach: (deviceId, package0) => this.#transparent.deliver(deviceId, gatewayId, package0),
      isReachable: (deviceId) => this.#addresses.get(deviceId) !== undefined,
      clock,
      entropy,
    });
    this.#upstream = new Upstream(
      {
        gatewayId,
        settings: mqttSettings(config.mqtt),
        softwareVersion,
        clock,
        entropy,
        events,
        notified: async (notification) => {
          if (notification.device !== undefined) await this.#transparent.notify(notification);
          else this.#dmClient.notified(notification.body ?? new Uint8Array());
        },
        connected: () => {
          this.#dmClient.wake();
          uplinkStatus.changed();
        },
        disconnected: () => uplinkStatus.changed(),
      },
      config.tunnel.timeout * 1000,
    );
    this.#dmClient = new DmClient({
      gatewayId,
      serverId: config['dm-server'].id,
      mediaType: encodings[config['dm-server'].encoding],
      accounts,
      tree: this.#tree,
      outbox: this.#outbox,
      vocabulary,
      upstream: this.#upstream,
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
      alerted: (deviceId, alert) => this.#objects.alerted(deviceId, alert),
      mayBeGateway: () => false,
      vocabulary,
      proved: (deviceId, remote) => this.#heard(deviceId, remote),
      schemesOf: (deviceId) => schemes.get(deviceId),
      work: (deviceId) => this.#proxy.work(deviceId),
    });
    const bootstrapSecrets = new Map(
      config.bootstrap.device.map(({ id, pin, 'factory-secret': network }) => [id, { network, pin }]),
    );
    const guard = new EchoGuard(clock, entropy);
    const bootstrapServer = new BootstrapServer({
      gatewayId,
      secretsOf: (deviceId) => bootstrapSecrets.get(deviceId),
      credentials: this.#credentials,
      guard,
      entropy,
      events,
      livesElsewhere: (deviceId, remote) => this.#livesElsewhere(deviceId, remote),
    });
    this.#network = new CoapNetwork({
      ...config.coap,
      clock,
      entropy,
      events,
      limits: { leisure: config.coap.leisure },
      compose: (local) =>
        new Blockwise(
          new Router([
            bootstrapServer.resource(local),
            this.#sessions.resource(local),
            this.#transparent.resource(),
            uplinkStatus.resource(local),
            imageResource(
              (name) => objects.images.ready(name),
              ({ remote }) => this.#inventory.get(this.#addresses.deviceAt(remote) ?? '') !== undefined,
            ),
          ]).handle,
          clock,
        ).handle,
      ...(listInterfaces && { listInterfaces }),
    });
    this.#http =
      config.http &&
      new HttpBinding({
        settings: httpSettings(config.http, gatewayId),
        sessions: this.#sessions,
        bootstrapServer,
        guard,
        forward: (up) => this.#transparent.forward(up),
        events,
      });
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
    this.#events.emit('warn', 'coap.insecure', { security: plainWarning });
    this.#associations.start();
    await this.#network.start();
    await this.#http?.start();
    this.#objects.resume();
    this.#upstream.start();
    this.#events.emit('info', 'gateway.started', {
      gateway: this.#config.gateway.id,
      port: this.#network.port,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    await using stack = new AsyncDisposableStack();
    stack.defer(() => this.#database.close());
    // From the last to the first: what waits for the uplink ends when the uplink does.
    stack.use(this.#dmClient);
    stack.use(this.#upstream);
    stack.use(this.#objects);
    stack.use(this.#associations);
    stack.use(this.#network);
    if (this.#http) stack.use(this.#http);
    stack.defer(() => this.#sessions.stop());
    this.#events.emit('info', 'gateway.stopping', { gateway: this.#config.gateway.id });
  }

  status(): GatewayStatus {
    const { gateway, mqtt, limits } = this.#config;
    return {
      gateway: gateway.id,
      software: softwareVersion,
      uplink: {
        connected: this.#upstream.connected,
        url: mqtt.url,
        mqtt: this.#upstream.protocol === 5 ? '5' : '3.1.1',
      },
      coap: {
        port: this.#network.port,
        addresses: this.#network.addresses.map(({ address }) => address),
        security: plainWarning,
      },
      devices: {
        attached: this.#inventory.size,
        limit: limits.devices,
      },
      outbox: { waiting: this.#outbox.size, limit: limits.outbox, dropped: this.#outbox.dropped },
      sessions: this.#sessions.size,
      counts: Object.fromEntries([...this.#events.counts].toSorted()),
    };
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
    return await this.#proxy.manage(deviceId, operations, { timeout });
  }

  #heard(deviceId: string, remote: Remote): void {
    this.#addresses.heard(deviceId, remote, true);
    this.#associations.heard(deviceId);
    this.#objects.heard(deviceId);
  }

  /** What an Exec of a DM server came to goes to that server. */
  #report(
    kind: keyof typeof resultAlerts,
    uri: string,
    { name, server, correlator }: { name: string; server: string; correlator: string | undefined },
    result: string,
  ): void {
    const body: ResultBody = { uri, result, ...(correlator !== undefined && { correlator }) };
    const isOwn = server === this.#config['dm-server'].id;
    this.#outbox.add(kind, name, JSON.stringify(body), isOwn ? undefined : server);
    this.#dmClient.wake();
  }

  /** The DM server bootstraps a device to this gateway (GwMO section 8.4.1). */
  #expect(device: ExpectedDevice): void {
    this.#credentials.put({ ...device, origin: 'server', attached: false });
    this.#events.emit('info', 'device.expected', { device: device.deviceId });
  }

  #uriFor(deviceId: string, path: string): string {
    const heard = this.#addresses.get(deviceId);
    const local = heard ? this.#network.localTowards(heard.address) : this.#network.addresses[0];
    if (!local) throw new PosternError('unavailable', 'the gateway has no address');
    return coapUri(local.address, this.#network.port, path);
  }

  /** A device that proved this ID answers from another address and port than the one that asks. */
  async #livesElsewhere(deviceId: string, remote: Remote): Promise<boolean> {
    const known = this.#addresses.get(deviceId);
    if (!known?.proven || !this.#inventory.get(deviceId)) return false;
    if (known.address === remote.address && known.port === remote.port) return false;
    return await this.#isAlive(deviceId);
  }

  async #isAlive(deviceId: string): Promise<boolean> {
    const known = this.#addresses.get(deviceId);
    const endpoint = known && this.#network.towards(known.address);
    return (await endpoint?.ping(known?.address ?? '', known?.port ?? 0, livenessTimeout)) ?? false;
  }
}
