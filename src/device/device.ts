import { type Clock, pause, SystemClock } from '../base/clock.ts';
import { openDatabase } from '../base/database.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { backoff } from '../base/retry.ts';
import { type OutgoingAlert, type SessionOutcome, succeeded } from '../dm/client-session.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import { Nodes } from '../dm/stored-nodes.ts';
import type { ManagementTree } from '../dm/tree.ts';
import { Accounts, accountsDescription, type DmAccount, readAccount } from '../mo/dm-acc.ts';
import { leavingAlert, locationUpdateAlert } from '../mo/gateway-alerts.ts';
import { type Vocabulary, vocabularyOf } from '../mo/vocabulary.ts';
import { decodeNotification, sessionIdText } from '../wire/syncml/notification.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { untilAttached } from './attachment.ts';
import { Bootstraps, byBootstrap } from './bootstraps.ts';
import { CoapStack, type Discovered, type StackAnswer, type StackIncoming } from './coap-stack.ts';
import type { DeviceConfig } from './config.ts';
import { deviceTree } from './device-tree.ts';
import type { Firmware } from './firmware.ts';
import { deviceSchema } from './schema.ts';
import { isDirect, placeOf, ServerSessions } from './server-sessions.ts';

export interface DeviceSurroundings {
  readonly events: Events;
  readonly clock?: Clock;
  readonly entropy?: Entropy;
}

/** Who put the account of the configuration into the tree. */
const byFactory = '/factory';

const retry = { first: 1000, cap: 60_000, jitter: 0.5 } as const;
const discoveryTimeout = 6000;
const tunnelPath = '/dm/t';
const notificationPath = '/dmn';

/** The reference End Device: an OMA DM client that finds its gateway, is bootstrapped to it, attaches, and is managed. */
export class Device implements AsyncDisposable {
  readonly #config: DeviceConfig;
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  readonly #events: Events;
  readonly #database: ReturnType<typeof openDatabase>;
  readonly #tree: ManagementTree;
  readonly #accounts: Accounts;
  readonly #coap: CoapStack;
  readonly #bootstraps: Bootstraps;
  readonly #sessions: ServerSessions;
  readonly #firmware: Firmware;
  readonly #vocabulary: Vocabulary;
  /** ServerIDs that may manage this device. */
  readonly #managers = new Set<string>();
  readonly #stop = new AbortController();
  readonly #attached = Promise.withResolvers<void>();
  #found: Discovered | undefined;
  #running: Promise<void> | undefined;

  /** @throws {PosternError} `configuration` */
  constructor(config: DeviceConfig, surroundings: DeviceSurroundings) {
    const { clock = new SystemClock(), entropy = systemEntropy, events } = surroundings;
    this.#config = config;
    this.#vocabulary = vocabularyOf(config.gwmo);
    this.#clock = clock;
    this.#entropy = entropy;
    this.#events = events;
    this.#database = openDatabase(config.device.state, deviceSchema);
    const nodes = new Nodes(this.#database);
    this.#accounts = new Accounts(new StoredBranch('DMAcc', accountsDescription, nodes, { clock }));
    const { tree, firmware } = deviceTree({
      config,
      database: this.#database,
      accounts: this.#accounts,
      clock,
      receive: (root, by) => this.#receiveAccount(root, by),
      update: {
        events,
        fetch: (uri) => this.#coap.download(uri),
        report: (serverId, alert) => this.#report(serverId, alert),
      },
    });
    this.#tree = tree;
    this.#firmware = firmware;
    this.#takeFactoryAccount();
    for (const account of this.#accounts.list()) if (isDirect(account)) this.#trust(account.serverId);
    this.#coap = new CoapStack(clock, config.network.interface, (request) => this.#asked(request));
    this.#sessions = new ServerSessions({
      deviceId: config.device.id,
      encoding: config.device.encoding,
      accounts: this.#accounts,
      tree,
      coap: this.#coap,
      entropy,
      events,
      tunnelPlace: (serverId) => this.#tunnelPlace(serverId),
      forget: (serverId) => this.#forget(serverId),
    });
    this.#bootstraps = new Bootstraps({
      config,
      tree: this.#tree,
      accounts: this.#accounts,
      database: this.#database,
      coap: this.#coap,
      entropy,
      events,
      receive: (root, by) => this.#receiveAccount(root, by),
    });
    this.#attached.promise.catch(() => {});
  }

  get id(): string {
    return this.#config.device.id;
  }

  /** Resolves when the device has attached to a gateway for the first time since its start. */
  get attached(): Promise<void> {
    return this.#attached.promise;
  }

  /** Value of a leaf, for whoever runs the device. */
  value(...path: string[]): string | Uint8Array | undefined {
    return this.#tree.view(path)?.value;
  }

  /** Servers that the device has accounts for. */
  get servers(): string[] {
    return this.#accounts.list().map(({ serverId }) => serverId);
  }

  /** Opens the socket, and goes on in the background until it is attached. */
  async start(): Promise<void> {
    const brought = await this.#bootstraps.applyBrought();
    if (brought && !isDirect(brought)) this.#trustWithAccounts(brought.serverId);
    await this.#coap.open();
    const { id: deviceId } = this;
    const parts = { deviceId, clock: this.#clock, entropy: this.#entropy, events: this.#events };
    this.#running = untilAttached({ ...parts, signal: this.#stop.signal }, async () => {
      await this.#attachOnce();
      this.#attached.resolve();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#attached.reject(new PosternError('unavailable', 'the device stops'));
    await this.#coap[Symbol.asyncDispose]();
    await this.#running;
    await this.#firmware.settled;
    await this.#sessions.idle;
    this.#database.close();
  }

  /** A session with the DM server that the device knows from its factory, through the gateway's tunnel. */
  async contactServer(serverId: string): Promise<SessionOutcome> {
    return await this.#sessions.run(serverId, undefined);
  }

  async #attachOnce(): Promise<void> {
    const found = await this.#discover();
    const server = this.#accounts.list().find((account) => !isDirect(account))?.serverId;
    const before = this.#gatewayAccount();
    const isElsewhere = before !== undefined && placeOf(before.address).base !== found.base;
    if (server && this.#tunnelTo(found, server) && (!before || isElsewhere))
      await this.#sessions.run(server, undefined, isElsewhere ? this.#locationUpdate(before) : []);
    if (!this.#accountFor(found)) await this.#bootstraps.ask(found);
    const account = this.#accountFor(found);
    if (!account) throw new PosternError('unavailable', 'no account for the gateway yet');
    const outcome = await this.#sessions.run(account.serverId, undefined);
    if (!succeeded(outcome))
      throw new PosternError(
        'unavailable',
        `the gateway ended the session with ${outcome.status}: ${outcome.reason}`,
      );
    this.#events.emit('device.attach-done', { device: this.id, gateway: account.serverId });
  }

  /**
   * Leaves the gateway: tells it so, and forgets its account.
   * @throws {PosternError} `notFound` when it is attached to none
   */
  async detach(): Promise<void> {
    const account = this.#gatewayAccount();
    if (!account) throw new PosternError('notFound', `${this.id} is attached to no gateway`);
    await this.#sessions.run(account.serverId, undefined, [leavingAlert(this.#vocabulary, this.id)]);
    this.#forget(account.serverId);
  }

  /** The device is not where its gateway was (GwMO 8.4.1, figure 10), and its settings let it say so. */
  #locationUpdate({ serverId }: DmAccount): OutgoingAlert[] {
    if (this.value('Settings', 'LocationUpdate') !== 'true') return [];
    const address = this.#coap.address;
    this.#events.emit('device.location-changed', { device: this.id, from: serverId, address });
    return [locationUpdateAlert(this.#vocabulary, { address, gateway: serverId })];
  }

  /** What an update came to is told until it is heard; its server may be away. */
  async #report(serverId: string, alert: OutgoingAlert): Promise<void> {
    const delays = backoff(retry, this.#entropy);
    while (this.#accounts.find(serverId)) {
      try {
        if (succeeded(await this.#sessions.run(serverId, undefined, [alert]))) return;
      } catch (thrown) {
        this.#stop.signal.throwIfAborted();
        const { message } = asPosternError(thrown);
        this.#events.emit('device.report-failed', { device: this.id, reason: message });
      }
      await pause(this.#clock, delays.next().value, this.#stop.signal);
    }
  }

  /** The account of the gateway that was found here. */
  #accountFor({ base }: Discovered): DmAccount | undefined {
    return this.#accounts
      .list()
      .find((account) => isDirect(account) && placeOf(account.address).base === base);
  }

  /** Any gateway first, by the one resource that is needed: a short answer; then all that this gateway has. */
  async #discover(): Promise<Discovered> {
    const { gateway, 'multicast-port': port } = this.#config.network;
    const wanted = this.#config.device['factory-secret'] === undefined ? 'oma.dm.tunnel' : 'oma.dm.bs';
    const base = gateway ?? (await this.#coap.discover(port, `rt=${wanted}`, discoveryTimeout))?.base;
    if (base === undefined) throw new PosternError('timeout', 'no gateway answered the multicast');
    const found = await this.#coap.linksOf(base, 'rt=oma.dm*', discoveryTimeout);
    this.#found = found;
    this.#events.emit('device.discovered', {
      device: this.id,
      gateway: found.base,
      resources: found.links.map(({ target }) => target).join(' '),
    });
    return found;
  }

  /** The account of a server that is reached by CoAP: a gateway. */
  #gatewayAccount(): DmAccount | undefined {
    return this.#accounts.list().find(isDirect);
  }

  #tunnelTo(found: Discovered | undefined, serverId: string): boolean {
    return found?.links.some(({ target }) => target === `${tunnelPath}/${serverId}`) ?? false;
  }

  /** The gateway does not know this device any more: it asks to be bootstrapped anew. */
  #forget(serverId: string): void {
    const name = this.#accounts.nodeName(serverId);
    if (name !== undefined) this.#accounts.branch.delete([name]);
    this.#events.emit('device.account-dropped', { device: this.id, server: serverId });
  }

  async #tunnelPlace(serverId: string) {
    const found = this.#found ?? (await this.#discover());
    return { base: found.base, path: `${tunnelPath}/${serverId}`, query: `id=${this.id}` };
  }

  /** Package #0 (OMA DM notification). The answer says whether it is believed; the session comes after it. */
  #asked({ method, url, payload }: StackIncoming): StackAnswer {
    if (method !== 'POST') return { code: '4.05' };
    if (url.split('?')[0] !== notificationPath) return { code: '4.04' };
    const notification = decodeNotification(payload);
    const { serverId } = notification;
    if (!this.#accounts.believes(notification)) {
      this.#events.emit('device.notification-refused', {
        device: this.id,
        server: serverId.slice(0, 64),
      });
      return { code: '4.01' };
    }
    const sessionId = sessionIdText(notification.sessionId);
    this.#events.emit('device.notified', { device: this.id, server: serverId, session: sessionId });
    void this.#sessions.run(serverId, sessionId).catch((thrown) => {
      if (this.#stop.signal.aborted) return;
      const reason = asPosternError(thrown).message;
      this.#events.emit('device.session-failed', { device: this.id, server: serverId, reason });
    });
    return { code: '2.04' };
  }

  /** A DM server of the device's own may give it accounts; so may no gateway. */
  #trustWithAccounts(serverId: string): void {
    this.#tree.setAcl(['Inbox'], `Add=${byBootstrap}+${serverId}`);
    this.#trust(serverId);
  }

  /** A server may change settings, and update. */
  #trust(serverId: string): void {
    this.#managers.add(serverId);
    const all = [...this.#managers].join('+');
    this.#tree.setAcl(['Settings'], `Get=*&Replace=${all}`);
    this.#tree.setAcl(['FwUpdate'], `Get=*&Add=${all}&Replace=${all}&Exec=${all}`);
  }

  /** An account comes in; it takes the place of another of its server only if the same hand gave both. */
  #receiveAccount(root: TndsNode, by: string): void {
    const account = readAccount(root);
    if (!URL.canParse(account.address)) throw new PosternError('malformed', 'an account without a URI');
    const known = this.#accounts.nodeName(account.serverId);
    if (known !== undefined && !this.#tree.permits(['DMAcc', known], 'Replace', by))
      throw new PosternError('forbidden', `the account for ${account.serverId} is not yours to replace`);
    const name = this.#accounts.put(account);
    this.#tree.setAcl(['DMAcc', name], `Get=*&Replace=${by}&Delete=${by}`);
    // To be bootstrapped to a gateway is to be managed by it (GwMO section 8.4): its ServerID has the rights of a server.
    if (isDirect(account)) this.#trust(account.serverId);
  }

  #takeFactoryAccount(): void {
    const server = this.#config['dm-server'];
    if (!server) return;
    this.#trustWithAccounts(server.id);
    if (this.#accounts.find(server.id)) return;
    const name = this.#accounts.put({
      serverId: server.id,
      address: `urn:${server.id}`,
      own: {
        name: this.id,
        secret: server['client-secret'],
        nonce: new Uint8Array(),
        schemes: server['client-auth'],
      },
      peer: {
        name: server.id,
        secret: server['server-secret'],
        nonce: new Uint8Array(),
        schemes: server['server-auth'],
      },
    });
    this.#tree.setAcl(['DMAcc', name], `Get=*&Replace=${byFactory}`);
  }
}
