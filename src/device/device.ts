import { background, failed, persistently } from '../base/background.ts';
import { type Clock, type Monotonic, pause, SystemClock } from '../base/clock.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { openDatabase } from '../base/open-database.ts';
import { backoff } from '../base/retry.ts';
import { writeAtStart } from '../base/start-writes.ts';
import { watchState } from '../base/watch-state.ts';
import { type OutgoingAlert, type SessionOutcome, succeeded } from '../dm/client-session.ts';
import { Nodes } from '../dm/stored-nodes.ts';
import type { ManagementTree } from '../dm/tree.ts';
import { AccountsBranch } from '../mo/accounts-branch.ts';
import { Accounts, accountsDescription, type DmAccount } from '../mo/dm-acc.ts';
import { leavingAlert, locationUpdateAlert } from '../mo/gateway-alerts.ts';
import { type Vocabulary, vocabularyOf } from '../mo/vocabulary.ts';
import { parseCoapUri } from '../wire/coap/uri.ts';
import { StoredSenders } from '../wire/secure/oscore/stored-senders.ts';
import { decodeNotification, sessionIdText } from '../wire/syncml/notification.ts';
import { AccountKeeper } from './account-keeper.ts';
import { Attachment } from './attachment.ts';
import { Bootstraps } from './bootstraps.ts';
import type { Discovered, StackAnswer, StackIncoming } from './coap-messages.ts';
import { CoapStack } from './coap-stack.ts';
import type { DeviceConfig } from './config.ts';
import { deviceTree } from './device-tree.ts';
import type { Firmware } from './firmware.ts';
import { GatewayKeys } from './gateway-keys.ts';
import { protectionOf } from './protected-datagrams.ts';
import { deviceSchema } from './schema.ts';
import { isDirect, isSamePlace, ServerSessions } from './server-sessions.ts';

/** What a device needs from its process. Clock and entropy are those of the machine by default. */
export interface DeviceSurroundings {
  readonly events: Events;
  readonly clock?: Clock;
  readonly entropy?: Entropy;
}

const retry = { first: 1000, cap: 60_000, jitter: 0.5 } as const;
/** Milliseconds. */
const discoveryTimeout = 6000;
/** Milliseconds between two sessions after a Package #0 that was not authentic. */
const doubtEvery = 60_000;
const tunnelPath = '/dm/t';
const notificationPath = '/dmn';

/**
 * The reference End Device, an OMA DM client. It discovers its gateway, gets an account for it by bootstrap, attaches to
 * it, and is managed by it and by its DM server.
 */
export class Device implements AsyncDisposable {
  readonly #config: DeviceConfig;
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  readonly #events: Events;
  readonly #database: ReturnType<typeof openDatabase>;
  readonly #tree: ManagementTree;
  readonly #accounts: Accounts;
  readonly #keeper: AccountKeeper;
  readonly #coap: CoapStack;
  readonly #bootstraps: Bootstraps;
  readonly #sessions: ServerSessions;
  readonly #firmware: Firmware;
  readonly #vocabulary: Vocabulary;
  readonly #stop = new AbortController();
  readonly #attached = Promise.withResolvers<void>();
  readonly #attachment: Attachment;
  /** `detach` is under way: the device does not attach again. */
  #isLeaving = false;
  #found: Discovered | undefined;
  /** The gateway that was found has answered the last attempt to attach: not now. */
  #isBusy = false;
  #doubted: Monotonic | undefined;
  #running: Promise<unknown> | undefined;

  /** @throws {PosternError} `configuration` when the state file cannot be used */
  constructor(config: DeviceConfig, surroundings: DeviceSurroundings) {
    const { entropy = systemEntropy, events } = surroundings;
    const { clock = new SystemClock((thrown) => failed(events, 'timer', thrown)) } = surroundings;
    this.#config = config;
    this.#vocabulary = vocabularyOf(config.gwmo);
    this.#clock = clock;
    this.#entropy = entropy;
    this.#events = events;
    this.#database = openDatabase(config.device.state, deviceSchema);
    watchState(this.#database, config.device.state, clock, events);
    const nodes = new Nodes(this.#database);
    const branch = new AccountsBranch('DMAcc', accountsDescription, nodes, { clock });
    this.#accounts = new Accounts(branch);
    const { tree, firmware } = deviceTree({
      config,
      database: this.#database,
      accounts: this.#accounts,
      clock,
      receive: (root, by) => this.#keeper.receive(root, by),
      update: {
        events,
        fetch: (uri) => this.#coap.download(uri),
        report: (serverId, alert) => this.#report(serverId, alert),
      },
    });
    this.#tree = tree;
    branch.listen({ lost: (serverId) => tree.forgetServer(serverId) });
    this.#firmware = firmware;
    this.#keeper = new AccountKeeper({
      config,
      accounts: this.#accounts,
      tree,
      database: this.#database,
      events,
    });
    writeAtStart({ database: this.#database, clock, events }, () =>
      this.#database.transaction(() => this.#keeper.takeOfFactory()),
    );
    const keys = new GatewayKeys({
      config,
      accounts: this.#accounts,
      events,
      forget: (serverId) => this.#keeper.forget(serverId),
      // The gateway reaches the device through its association only.
      lost: () => {
        if (!this.#isLeaving) this.#attachment.again();
      },
    });
    const protection = protectionOf(config, {
      clock,
      entropy,
      events,
      contextFor: keys.contextFor,
      refused: (identity) => keys.refused('', identity),
      senders: new StoredSenders(this.#database, clock),
    });
    const asked = (request: StackIncoming) => this.#asked(request);
    const where = config.network.interface;
    this.#coap = new CoapStack(clock, where, asked, events, protection, keys);
    this.#sessions = new ServerSessions({
      deviceId: config.device.id,
      encoding: config.device.encoding,
      accounts: this.#accounts,
      tree,
      coap: this.#coap,
      entropy,
      events,
      tunnelPlace: (serverId) => this.#tunnelPlace(serverId),
      forget: (serverId) => {
        this.#keeper.forget(serverId);
        if (!this.#isLeaving) this.#attachment.again();
      },
    });
    this.#bootstraps = new Bootstraps({
      config,
      tree: this.#tree,
      accounts: this.#accounts,
      database: this.#database,
      coap: this.#coap,
      entropy,
      events,
      receive: (root, by) => this.#keeper.receive(root, by),
    });
    this.#attached.promise.catch(() => {});
    this.#attachment = new Attachment(
      {
        deviceId: config.device.id,
        clock,
        entropy,
        events,
        signal: this.#stop.signal,
        attachEvery: config.network['attach-every'] * 1000,
        address: () => this.#found && this.#coap.addressTowards(this.#found.base),
      },
      async () => {
        await this.#attachOnce();
        this.#attached.resolve();
      },
    );
  }

  get id(): string {
    return this.#config.device.id;
  }

  /** Resolves when the device has attached for the first time since its start. Rejects when it stops before. */
  get attached(): Promise<void> {
    return this.#attached.promise;
  }

  /** Value of the leaf at this path, without any check of ACLs. `undefined` when there is none. */
  value(...path: string[]): string | Uint8Array | undefined {
    return this.#tree.view(path)?.value;
  }

  /** ServerIDs of the servers for which the device has accounts. */
  get servers(): string[] {
    return this.#accounts.list().map(({ serverId }) => serverId);
  }

  /**
   * Applies the bootstrap document of the configuration and opens the socket. Attaching continues in the background.
   * @throws {PosternError} `configuration`
   */
  async start(): Promise<void> {
    const brought = await this.#bootstraps.applyBrought();
    if (brought && !isDirect(brought)) this.#keeper.trustWithAccounts(brought.serverId);
    await this.#coap.open();
    const parts = { clock: this.#clock, entropy: this.#entropy, events: this.#events };
    this.#running = persistently(parts, 'device', () => this.#attachment.run(), this.#stop.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#attached.reject(new PosternError('unavailable', 'the device stops'));
    await this.#coap[Symbol.asyncDispose]();
    await this.#running;
    await this.#firmware.settled;
    await this.#sessions.idle;
    await this.#database.close();
  }

  /**
   * Opens a session with a server for which the device has an account. A DM server is reached through the gateway's
   * tunnel.
   * @throws {PosternError} `notFound` without an account, `full`, `timeout`, `unavailable`
   */
  async contactServer(serverId: string): Promise<SessionOutcome> {
    return await this.#sessions.run(serverId, undefined);
  }

  /**
   * One attempt to attach. A device without a gateway's account, or at another gateway than before, first has a session
   * with its DM server, if this gateway has a tunnel to it. In that session the DM server may bootstrap the device to the
   * gateway (GwMO 8.4.1). If there is still no account for this gateway, the device asks the local bootstrap server. Over DTLS
   * the tunnel takes the key of that account alone, so there the local bootstrap comes first, and a move is reported last.
   */
  async #attachOnce(): Promise<void> {
    // A gateway that was too busy is still where it was found.
    const found = (this.#isBusy && this.#found) || (await this.#discover());
    this.#isBusy = false;
    const server = this.#accounts.list().find((account) => !isDirect(account))?.serverId;
    const before = this.#keeper.ofGateway();
    const isElsewhere = before !== undefined && !isSamePlace(before.address, found.secure ?? found.base);
    const isDue = server && this.#tunnelTo(found, server) && (!before || isElsewhere);
    const isOpen = parseCoapUri(found.base).scheme === 'coap' || this.#keeper.at(found)?.transport;
    if (isDue && isOpen)
      await this.#sessions.run(server, undefined, isElsewhere ? this.#locationUpdate(before, found) : []);
    if (!this.#keeper.at(found)) await this.#bootstraps.ask(await this.#withBootstrapServer(found));
    const account = this.#keeper.at(found);
    if (!account) {
      const other = this.#keeper.ofGateway();
      const why = other
        ? `the account of the gateway is for ${other.address}: compare the security of this device with that at the gateway, DTLS or OSCORE`
        : 'no account for the gateway yet';
      throw new PosternError('unavailable', why);
    }
    const outcome = await this.#sessions.run(account.serverId, undefined).catch((thrown) => {
      this.#isBusy = asPosternError(thrown).retryAfter !== undefined;
      throw thrown;
    });
    if (!succeeded(outcome))
      throw new PosternError(
        'unavailable',
        `the session with the gateway ended with status ${outcome.status}: ${outcome.reason}`,
      );
    if (isDue && !isOpen && isElsewhere)
      await this.#sessions.run(server, undefined, this.#locationUpdate(before, found));
    this.#events.emit('device.attach-done', { device: this.id, gateway: account.serverId });
  }

  /**
   * Leaves the gateway: reports this to the gateway by an alert, and deletes the account for it.
   * @throws {PosternError} `notFound` without an account for a gateway, `full`, `timeout`, `unavailable`
   */
  async detach(): Promise<void> {
    const account = this.#keeper.ofGateway();
    if (!account) throw new PosternError('notFound', `${this.id} is not attached to a gateway`);
    this.#isLeaving = true;
    try {
      const leaving = [leavingAlert(this.#vocabulary, this.id)];
      const outcome = await this.#sessions.run(account.serverId, undefined, leaving);
      // A gateway that could not store it would go on to believe that the device is there.
      if (!succeeded(outcome))
        throw new PosternError('unavailable', `the session ended with ${outcome.status}: ${outcome.reason}`);
      this.#keeper.forget(account.serverId);
    } catch (thrown) {
      // The gateway does not know the device any more: an earlier try got as far as that.
      if (this.#accounts.find(account.serverId)) throw thrown;
    } finally {
      this.#isLeaving = false;
    }
  }

  /** The alert that the device has moved to another gateway (GwMO 8.4.1, figure 10). None if the settings forbid it. */
  #locationUpdate({ serverId }: DmAccount, { base }: Discovered): OutgoingAlert[] {
    if (this.value('Settings', 'LocationUpdate') !== 'true') return [];
    const address = this.#coap.addressTowards(base) ?? '';
    this.#events.emit('device.location-changed', { device: this.id, from: serverId, address });
    return [locationUpdateAlert(this.#vocabulary, { address, gateway: serverId })];
  }

  /** Reports the result of an update. The server may be unreachable, so this is tried until it succeeds. */
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

  /**
   * Finds a gateway and its resources. Only the one resource is asked for that the device needs, so that the response is short
   * enough for one datagram: a gateway sends more than three times what it got only to those that have proved themselves.
   */
  async #discover(): Promise<Discovered> {
    const { gateway, 'multicast-port': port } = this.#config.network;
    const sought = this.#config.device['factory-secret'] === undefined ? 'oma.dm.tunnel' : 'oma.dm.bs';
    const near = gateway === undefined && (await this.#coap.discover(port, `rt=${sought}`, discoveryTimeout));
    const base = near ? near.base : gateway;
    if (base === undefined) throw new PosternError('timeout', 'no gateway answered the multicast');
    const needed = this.#accounts.list().every(isDirect) ? 'oma.dm.bs' : 'oma.dm.tunnel';
    const isKnown = near && needed === sought;
    const asked = isKnown ? near : await this.#coap.linksOf(base, `rt=${needed}`, discoveryTimeout);
    const found = await this.#withSecure(asked, needed === 'oma.dm.tunnel');
    this.#found = found;
    this.#events.emit('device.discovered', {
      device: this.id,
      gateway: found.secure ?? base,
      resources: found.links.map(({ target }) => target).join(' '),
    });
    return found;
  }

  /**
   * The same gateway, with its base over DTLS. The link to its tunnel does not name that, since the tunnel is served over plain CoAP
   * too. A device with OSCORE stays with plain CoAP.
   */
  async #withSecure({ secure, ...found }: Discovered, isTunnel: boolean): Promise<Discovered> {
    if (this.#config.oscore || this.#config.device.security === 'oscore') return found;
    const named = isTunnel
      ? (secure ?? (await this.#coap.linksOf(found.base, 'rt=oma.dm', discoveryTimeout)).secure)
      : secure;
    return named === undefined ? found : { ...found, secure: named };
  }

  /** The same gateway, with the link to its bootstrap server if it was not asked for that before, and the device needs it. */
  async #withBootstrapServer(found: Discovered): Promise<Discovered> {
    if (this.#config.device['factory-secret'] === undefined || this.#accounts.list().every(isDirect))
      return found;
    const { links, challenge } = await this.#coap.linksOf(found.base, 'rt=oma.dm.bs', discoveryTimeout);
    return { ...found, links: [...found.links, ...links], challenge };
  }

  #tunnelTo(found: Discovered | undefined, serverId: string): boolean {
    return found?.links.some(({ target }) => target === `${tunnelPath}/${serverId}`) ?? false;
  }

  async #tunnelPlace(serverId: string) {
    const found = this.#found ?? (await this.#discover());
    const base = (this.#keeper.at(found)?.transport && found.secure) ?? found.base;
    return { base, path: `${tunnelPath}/${serverId}`, query: `id=${this.id}` };
  }

  /**
   * Handles a request to the device, which is Package #0 (OMA DM notification). The response says whether its digest is
   * right, and it came by the key of the server's account, if that has one. The session that it asks for starts in the background.
   */
  #asked({ method, url, payload, isProtected }: StackIncoming): StackAnswer {
    if (method !== 'POST') return { code: '4.05' };
    if (url.split('?')[0] !== notificationPath) return { code: '4.04' };
    const notification = decodeNotification(payload);
    const { serverId } = notification;
    // The secrets of an account may have been read on their way to this device. Its key was not.
    const needsKey = this.#accounts.find(serverId)?.transport !== undefined;
    if ((needsKey && !isProtected) || !this.#accounts.believes(notification)) {
      this.#events.emit('device.notification-refused', {
        device: this.id,
        server: serverId.slice(0, 64),
      });
      this.#doubt(serverId);
      return { code: '4.01' };
    }
    const sessionId = sessionIdText(notification.sessionId);
    this.#events.emit('device.notified', { device: this.id, server: serverId, session: sessionId });
    void background(this.#events, 'device', () => this.#openSession(serverId, sessionId));
    return { code: '2.04' };
  }

  /** Opens the session that a server has asked for. */
  async #openSession(serverId: string, sessionId: string): Promise<void> {
    try {
      await this.#sessions.run(serverId, sessionId);
    } catch (thrown) {
      if (this.#stop.signal.aborted) return;
      const { code, message: reason } = asPosternError(thrown);
      this.#events.emit('device.session-failed', { device: this.id, server: serverId, reason });
      // The gateway is not where it was. Through the tunnel, the gateway itself would have answered.
      if (code === 'timeout') this.#attachment.again();
    }
  }

  /**
   * A Package #0 in the name of the gateway was not authentic. Either somebody else sent it, or the gateway's state went back
   * in time and it has an older account. A session shows which. Anyone can send such packages, so this is done seldom.
   */
  #doubt(serverId: string): void {
    const now = this.#clock.now();
    const isGateway = this.#keeper.ofGateway()?.serverId === serverId;
    if (!isGateway || (this.#doubted !== undefined && now - this.#doubted < doubtEvery)) return;
    this.#doubted = now;
    this.#attachment.again();
  }
}
