import { readFileSync } from 'node:fs';
import { type Clock, pause, SystemClock } from '../base/clock.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { backoff } from '../base/retry.ts';
import { softwareVersion } from '../base/version.ts';
import { contentFormatOf, mediaTypeOf } from '../coap/content-formats.ts';
import { Option } from '../coap/options.ts';
import { parseCoapUri } from '../coap/uri.ts';
import {
  ClientSession,
  type OutgoingAlert,
  runClientSession,
  type SessionOutcome,
  succeeded,
} from '../dm/client-session.ts';
import { execute } from '../dm/commands.ts';
import { forgetfulNodes } from '../dm/node-store.ts';
import { DmStatus } from '../dm/status.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import { ManagementTree } from '../dm/tree.ts';
import { devDetail, devDetailNodes } from '../mo/dev-detail.ts';
import { devInfo, devInfoNodes } from '../mo/dev-info.ts';
import { Accounts, accountNodes, accountsDescription, type DmAccount, readAccount } from '../mo/dm-acc.ts';
import { leavingAlert, locationUpdateAlert } from '../mo/gateway-alerts.ts';
import { MoId } from '../mo/identifiers.ts';
import { Inbox } from '../mo/inbox.ts';
import { provisionedAccounts } from '../mo/provisioned-accounts.ts';
import { AppliedBootstraps } from '../store/applied-bootstraps.ts';
import { openDatabase, transaction } from '../store/database.ts';
import { Acls, Nodes } from '../store/nodes.ts';
import { encodeProof, proofMac } from '../syncml/bootstrap-proof.ts';
import { verifyBootstrap } from '../syncml/bootstrap-security.ts';
import { decodeMessage, encodeMessage, encodings, isSupported } from '../syncml/codec.ts';
import { interior, leaf } from '../syncml/ddf.ts';
import { decodeNotification, sessionIdText } from '../syncml/notification.ts';
import { decodeProvisioning, ProvisioningMediaType } from '../syncml/provisioning.ts';
import type { TndsNode } from '../syncml/tnds.ts';
import { CoapStack, type Discovered } from './coap-stack.ts';
import type { DeviceConfig } from './config.ts';

export interface DeviceSurroundings {
  readonly events: Events;
  readonly clock?: Clock;
  readonly entropy?: Entropy;
}

/** What the reference device lets a server set. */
const settings = interior(['Get'], 'Settings of the device', {
  Label: leaf('chr', ['Get', 'Replace'], 'A name that the operator gives'),
  ReportInterval: leaf('int', ['Get', 'Replace'], 'Seconds between reports'),
  LocationUpdate: leaf(
    'bool',
    ['Get', 'Replace'],
    'Whether it tells its DM server that it is somewhere else',
  ),
});

/** Who put an account into the tree, where no server did: ServerIDs have no slash, so no server can pass for it. */
const byFactory = '/factory';
const byBootstrap = '/bootstrap';

const retry = { first: 1000, cap: 60_000, jitter: 0.5 } as const;
const discoveryTimeout = 6000;
/** Milliseconds for one package and its answer: of the gateway itself, and of a server that the gateway waits for. */
const directTimeout = 20_000;
const tunnelTimeout = 90_000;
const nonceBytes = 16;
const bootstrapPath = '/dm/bs';
const tunnelPath = '/dm/t';
const notificationPath = '/dmn';
/** Sessions that may be asked for while one is under way. */
const waitingSessions = 8;

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
  readonly #stop = new AbortController();
  readonly #attached = Promise.withResolvers<void>();
  #found: Discovered | undefined;
  #running: Promise<void> | undefined;
  /** One session at a time; the others wait in order. */
  #queue: Promise<unknown> = Promise.resolve();
  #queued = 0;
  #nextSessionId: number;

  /** @throws {PosternError} `configuration` */
  constructor(config: DeviceConfig, surroundings: DeviceSurroundings) {
    const { clock = new SystemClock(), entropy = systemEntropy, events } = surroundings;
    this.#config = config;
    this.#clock = clock;
    this.#entropy = entropy;
    this.#events = events;
    this.#nextSessionId = 1 + Math.floor(entropy.uniform() * 0x7fff);
    this.#database = openDatabase(config.device.state);
    const nodes = new Nodes(this.#database);
    this.#accounts = new Accounts(new StoredBranch('DMAcc', accountsDescription, nodes, { clock }));
    this.#tree = this.#makeTree(nodes);
    this.#takeFactoryAccount();
    this.#coap = new CoapStack(clock, config.network.interface, (path, payload) =>
      this.#posted(path, payload),
    );
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
    await this.#applyBrought();
    await this.#coap.open();
    this.#running = this.#becomeAttached();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#attached.reject(new PosternError('unavailable', 'the device stops'));
    await this.#coap[Symbol.asyncDispose]();
    await this.#running;
    await this.#queue.catch(() => {});
    this.#database.close();
  }

  /** A session with the DM server that the device knows from its factory, through the gateway's tunnel. */
  async contactServer(serverId: string): Promise<SessionOutcome> {
    return await this.#session(serverId, undefined);
  }

  async #becomeAttached(): Promise<void> {
    const delays = backoff(retry, this.#entropy);
    while (!this.#stop.signal.aborted) {
      try {
        await this.#attachOnce();
        this.#attached.resolve();
        return;
      } catch (thrown) {
        if (this.#stop.signal.aborted) return;
        const { code, message } = asPosternError(thrown);
        const delay = delays.next().value;
        this.#events.emit(code === 'internal' ? 'error' : 'warn', 'device.attach-failed', {
          device: this.id,
          code,
          reason: message,
          retryInSeconds: Math.round(delay / 100) / 10,
        });
        await pause(this.#clock, delay, this.#stop.signal).catch(() => {});
      }
    }
  }

  async #attachOnce(): Promise<void> {
    const found = await this.#discover();
    const server = this.#accounts.list().find((account) => !isDirect(account))?.serverId;
    const before = this.#gatewayAccount();
    const isElsewhere = before !== undefined && placeOf(before.address).base !== found.base;
    if (server && this.#tunnelTo(found, server) && (!before || isElsewhere))
      await this.#session(server, undefined, isElsewhere ? this.#locationUpdate(before) : []);
    if (!this.#accountFor(found)) await this.#bootstrap(found);
    const account = this.#accountFor(found);
    if (!account) throw new PosternError('unavailable', 'no account for the gateway yet');
    const outcome = await this.#session(account.serverId, undefined);
    if (!succeeded(outcome))
      throw new PosternError(
        'unavailable',
        `the gateway ended the session with ${outcome.status}: ${outcome.reason}`,
      );
    this.#events.emit('info', 'device.attached', { device: this.id, gateway: account.serverId });
  }

  /**
   * Leaves the gateway: tells it so, and forgets its account.
   * @throws {PosternError} `notFound` when it is attached to none
   */
  async detach(): Promise<void> {
    const account = this.#gatewayAccount();
    if (!account) throw new PosternError('notFound', `${this.id} is attached to no gateway`);
    await this.#session(account.serverId, undefined, [leavingAlert(this.id)]);
    this.#forget(account.serverId);
  }

  /** The device is not where its gateway was (GwMO 8.4.1, figure 10), and its settings let it say so. */
  #locationUpdate({ serverId }: DmAccount): OutgoingAlert[] {
    if (this.value('Settings', 'LocationUpdate') !== 'true') return [];
    const address = this.#coap.address;
    this.#events.emit('info', 'device.moved', { device: this.id, from: serverId, address });
    return [locationUpdateAlert({ address, gateway: serverId })];
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
    this.#events.emit('info', 'device.discovered', {
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

  /** The local bootstrap server (GwMO section 8.4.2). */
  async #bootstrap(found: Discovered): Promise<void> {
    const secret = this.#config.device['factory-secret'];
    if (secret === undefined || !found.links.some(({ target }) => target === bootstrapPath))
      throw new PosternError(
        'unavailable',
        'no factory secret, or no bootstrap server here: the DM server has to assist',
      );
    const ask = (options: Record<number, Uint8Array>, payload?: Uint8Array) =>
      this.#coap.request({
        method: 'POST',
        base: found.base,
        path: bootstrapPath,
        query: `id=${this.id}`,
        options,
        timeout: directTimeout,
        ...(payload && { payload }),
      });
    const challenge = (await ask({})).option(Option.Echo.number);
    if (!challenge) throw new PosternError('unavailable', 'the bootstrap server gave no challenge');
    const deviceNonce = this.#entropy.bytes(nonceBytes);
    const proof = encodeProof({ deviceNonce, mac: proofMac(secret, challenge, this.id, deviceNonce) });
    const answer = await ask({ [Option.Echo.number]: challenge }, proof);
    const { contentFormat = 0, option } = answer;
    if (answer.code !== '2.04')
      throw new PosternError(
        'unauthorized',
        `the bootstrap server answered ${answer.code}: ${Buffer.from(answer.payload).toString()}`,
      );
    const added = await this.#apply(
      answer.payload,
      mediaTypeOf(contentFormat) ?? '',
      Buffer.from(option(Option.BootstrapMac.number) ?? '').toString(),
    );
    if (added?.bootstrapNonce !== Buffer.from(deviceNonce).toString('hex'))
      throw new PosternError('unauthorized', 'the bootstrap answers another request');
    this.#events.emit('info', 'device.bootstrapped', { device: this.id, gateway: added.serverId });
  }

  /**
   * Applies a bootstrap, DM profile or Client Provisioning, and answers with the account that it brought.
   * @throws {PosternError} `unauthorized` when it does not come from one who knows the secrets, was applied before, or is
   * for another device; `malformed`, `unsupportedFormat`
   */
  async #apply(document: Uint8Array, mediaType: string, security: string): Promise<DmAccount | undefined> {
    const { 'factory-secret': network, pin } = this.#config.device;
    verifyBootstrap(document, security, { network, pin });
    const applied = new AppliedBootstraps(this.#database);
    if (applied.has(document)) throw new PosternError('unauthorized', 'this bootstrap was applied before');
    const before = new Set(this.servers);
    if (isSupported(mediaType)) await this.#applyMessage(document, mediaType);
    else if (mediaType === ProvisioningMediaType.Wbxml || mediaType === ProvisioningMediaType.Xml)
      for (const account of provisionedAccounts(decodeProvisioning(document)))
        this.#receiveAccount(accountNodes('provisioned', account), byBootstrap);
    else throw new PosternError('unsupportedFormat', `a bootstrap of type ${mediaType}`);
    applied.add(document);
    return (
      this.#accounts.list().find(({ serverId }) => !before.has(serverId)) ?? this.#accounts.list().at(-1)
    );
  }

  /** The DM profile: one command, which is not answered (OMA DM bootstrap 1.2.1, section 5.4). */
  async #applyMessage(document: Uint8Array, mediaType: string): Promise<void> {
    const { header, commands } = decodeMessage(document, mediaType);
    if (header.target.locUri !== this.id)
      throw new PosternError('unauthorized', `this bootstrap is for ${header.target.locUri}`);
    for (const command of commands)
      for (const { items } of await execute({ tree: this.#tree, serverId: byBootstrap }, command)) {
        const failed = items.find(({ status }) => status !== DmStatus.Ok);
        if (failed)
          throw new PosternError(
            'unauthorized',
            `the bootstrap was not applied: ${failed.status} ${failed.reason ?? ''}`,
          );
      }
  }

  /** A bootstrap that somebody brought, applied at the first start. */
  async #applyBrought(): Promise<void> {
    const { bootstrap } = this.#config;
    if (!bootstrap) return;
    let document: Uint8Array;
    try {
      document = readFileSync(bootstrap.file);
    } catch (cause) {
      throw new PosternError('configuration', `bootstrap.file: ${bootstrap.file} cannot be read`, { cause });
    }
    const [mediaType = ''] = bootstrap.type.split(';');
    try {
      if (new AppliedBootstraps(this.#database).has(document)) return;
      const added = await this.#apply(document, mediaType.trim(), bootstrap.type);
      if (!added) return;
      if (!isDirect(added)) this.#trust(added.serverId);
      this.#events.emit('info', 'device.bootstrapped', { device: this.id, server: added.serverId });
    } catch (thrown) {
      throw new PosternError('configuration', `bootstrap.file: ${asPosternError(thrown).message}`, {
        cause: thrown,
      });
    }
  }

  /** One session with a server that the device has an account for. */
  async #session(
    serverId: string,
    notifiedId: string | undefined,
    alerts: readonly OutgoingAlert[] = [],
  ): Promise<SessionOutcome> {
    if (this.#queued >= waitingSessions) throw new PosternError('full', 'too many sessions wait');
    this.#queued++;
    const run = this.#queue.then(() => this.#runSession(serverId, notifiedId, alerts));
    this.#queue = run.catch(() => {});
    try {
      return await run;
    } finally {
      this.#queued--;
    }
  }

  async #runSession(
    serverId: string,
    notifiedId: string | undefined,
    alerts: readonly OutgoingAlert[],
  ): Promise<SessionOutcome> {
    const account = this.#accounts.find(serverId);
    if (!account) throw new PosternError('notFound', `no account for ${serverId}`);
    const sessionId = notifiedId ?? this.#takeSessionId();
    const mediaType = encodings[this.#config.device.encoding];
    const tunnelled = !isDirect(account);
    const place = tunnelled ? await this.#tunnelPlace(serverId) : placeOf(account.address);
    const session = new ClientSession({
      ends: { local: this.id, remote: serverId },
      account,
      saveNonces: this.#accounts.nonceKeeper(serverId),
      tree: this.#tree,
      entropy: this.#entropy,
      sessionId,
      notified: notifiedId !== undefined,
      alerts,
      executed: (command, uri, status) =>
        this.#events.emit('info', 'device.command', {
          device: this.id,
          server: serverId,
          command,
          uri,
          status,
        }),
    });
    this.#events.emit('info', 'device.session-started', {
      device: this.id,
      server: serverId,
      session: sessionId,
      tunnelled,
    });
    const outcome = await runClientSession(session, async (message, seal) => {
      const body = encodeMessage(message, mediaType);
      const hmac = seal(body);
      const { code, payload, option } = await this.#coap.request({
        method: 'POST',
        ...place,
        contentFormat: contentFormatOf(mediaType)!,
        payload: body,
        timeout: tunnelled ? tunnelTimeout : directTimeout,
        ...(hmac !== undefined && { options: { [Option.SyncmlHmac.number]: Buffer.from(hmac) } }),
      });
      if (code === '2.04') {
        const proof = option(Option.SyncmlHmac.number);
        return {
          message: decodeMessage(payload, mediaType),
          seal: { body: payload, hmac: proof && Buffer.from(proof).toString() },
        };
      }
      const why = `${place.path} answered ${code}: ${Buffer.from(payload).toString()}`;
      if (code === '4.03' && !tunnelled) this.#forget(serverId);
      throw new PosternError('unavailable', why);
    });
    this.#events.emit('info', 'device.session-ended', {
      device: this.id,
      server: serverId,
      session: sessionId,
      status: outcome.status,
    });
    return outcome;
  }

  /** The gateway does not know this device any more: it asks to be bootstrapped anew. */
  #forget(serverId: string): void {
    const name = this.#accounts.nodeName(serverId);
    if (name !== undefined) this.#accounts.branch.delete([name]);
    this.#events.emit('warn', 'device.account-dropped', { device: this.id, server: serverId });
  }

  async #tunnelPlace(serverId: string) {
    const found = this.#found ?? (await this.#discover());
    return { base: found.base, path: `${tunnelPath}/${serverId}`, query: `id=${this.id}` };
  }

  /** Package #0 (OMA DM notification). The answer says whether it is believed; the session comes after it. */
  #posted(path: string, payload: Uint8Array): string {
    if (path.split('?')[0] !== notificationPath) return '4.04';
    const notification = decodeNotification(payload);
    const { serverId } = notification;
    if (!this.#accounts.believes(notification)) {
      this.#events.emit('warn', 'device.notification-refused', {
        device: this.id,
        server: serverId.slice(0, 64),
      });
      return '4.01';
    }
    const sessionId = sessionIdText(notification.sessionId);
    this.#events.emit('info', 'device.notified', { device: this.id, server: serverId, session: sessionId });
    void this.#session(serverId, sessionId).catch((thrown) => {
      if (this.#stop.signal.aborted) return;
      const reason = asPosternError(thrown).message;
      this.#events.emit('warn', 'device.session-failed', { device: this.id, server: serverId, reason });
    });
    return '2.04';
  }

  #makeTree(nodes: Nodes): ManagementTree {
    const { id, manufacturer, model, firmware } = this.#config.device;
    const info = new StoredBranch('DevInfo', devInfo.root, forgetfulNodes, { type: devInfo.id });
    info.plant([], devInfoNodes({ deviceId: id, manufacturer, model }));
    const detail = new StoredBranch('DevDetail', devDetail.root, forgetfulNodes, { type: devDetail.id });
    detail.plant([], devDetailNodes({ type: 'device', firmware, software: softwareVersion, hardware: '1' }));
    const own = new StoredBranch('Settings', settings, nodes, { clock: this.#clock });
    for (const node of initialSettings) if (!own.view([node.name])) own.plant([node.name], node);
    const inbox = new Inbox({ [MoId.DmAcc]: (root, by) => this.#receiveAccount(root, by) });
    const branches = {
      DevInfo: info,
      DevDetail: detail,
      DMAcc: this.#accounts.branch,
      Settings: own,
      Inbox: inbox,
    };
    const acls = new Acls(this.#database, {
      '.': 'Get=*',
      './Inbox': `Add=${byBootstrap}`,
      './Settings': 'Get=*',
    });
    return new ManagementTree(branches, acls, (work) => transaction(this.#database, work));
  }

  /** A DM server of the device's own may give it accounts, and change its settings. */
  #trust(serverId: string): void {
    this.#tree.setAcl(['Inbox'], `Add=${byBootstrap}+${serverId}`);
    this.#tree.setAcl(['Settings'], `Get=*&Replace=${serverId}`);
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
  }

  #takeFactoryAccount(): void {
    const server = this.#config['dm-server'];
    if (!server) return;
    this.#trust(server.id);
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

  #takeSessionId(): string {
    this.#nextSessionId = (this.#nextSessionId % 0xffff) + 1;
    return sessionIdText(this.#nextSessionId);
  }
}

const initialSettings: readonly TndsNode[] = [
  { name: 'Label', format: 'chr', value: 'not named yet' },
  { name: 'ReportInterval', format: 'int', value: '3600' },
  { name: 'LocationUpdate', format: 'bool', value: 'true' },
];

/** A server that is reached by CoAP is a gateway; any other is reached through the gateway's tunnel. */
const isDirect = ({ address }: DmAccount): boolean => address.startsWith('coap:');

function placeOf(address: string): { base: string; path: string } {
  const { host, port, path } = parseCoapUri(address);
  return { base: `coap://${host.includes(':') ? `[${host}]` : host}:${port}`, path: `/${path.join('/')}` };
}
