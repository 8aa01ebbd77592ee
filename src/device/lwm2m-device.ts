import { background, failed, persistently } from '../base/background.ts';
import { type Clock, pause, SystemClock } from '../base/clock.ts';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { ContentFormat } from '../wire/coap/content-formats.ts';
import { formatLinks, type Link } from '../wire/coap/link-format.ts';
import { coapBase, parseCoapUri } from '../wire/coap/uri.ts';
import { decodeContent, encodeContent } from '../wire/lwm2m/content.ts';
import { ObjectId, ServerResource } from '../wire/lwm2m/objects.ts';
import { isBelow, type Path, parsePath, pathText } from '../wire/lwm2m/path.ts';
import type { Entry, Value } from '../wire/lwm2m/resource.ts';
import { instancesIn } from '../wire/lwm2m/tlv.ts';
import { halfway, untilAttached, untilMoved } from './attachment.ts';
import { ClientKeys, serverAccount } from './client-keys.ts';
import type { StackAnswer, StackIncoming } from './coap-messages.ts';
import { CoapStack } from './coap-stack.ts';
import type { DeviceConfig } from './config.ts';
import type { DeviceSurroundings } from './device.ts';
import { LwM2mFirmware } from './lwm2m-firmware.ts';
import { LwM2mObjects } from './lwm2m-objects.ts';
import { LwM2mReports } from './lwm2m-reports.ts';
import { protectionOf } from './protected-datagrams.ts';

/** Milliseconds for one exchange, and for the gateway to finish a bootstrap. */
const timeout = 20_000;
/** Milliseconds. */
const discoveryTimeout = 6000;
/** IPSO's object Temperature. */
const temperature = 3303;
/** IPSO's object Light Control. */
const light = 3311;
/** Objects of the accounts of servers. */
const accountObjects: readonly number[] = [ObjectId.Security, ObjectId.Server, ObjectId.Oscore];

/**
 * The reference End Device as an LwM2M client, a thermometer with a lamp. It discovers its gateway, gets an account for
 * it by bootstrap, registers, and renews the registration. It has no durable state.
 */
export class LwM2mDevice implements AsyncDisposable {
  readonly #config: DeviceConfig;
  readonly #settings: NonNullable<DeviceConfig['lwm2m']>;
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  readonly #events: Events;
  readonly #coap: CoapStack;
  readonly #objects = new LwM2mObjects([light]);
  readonly #keys: ClientKeys;
  readonly #reports: LwM2mReports;
  readonly #firmware: LwM2mFirmware;
  readonly #stop = new AbortController();
  readonly #attached = Promise.withResolvers<void>();
  /** Present while the device is being bootstrapped. Resolves when the bootstrap server says that it has finished. */
  #finished: PromiseWithResolvers<void> | undefined;
  /** URI of the registration: `coap://host:port`, and the path that the server gave. */
  #registration: { base: string; path: string } | undefined;
  #running: Promise<unknown> | undefined;

  /** @throws {PosternError} `configuration` without a table `lwm2m` */
  constructor(config: DeviceConfig, surroundings: DeviceSurroundings) {
    const { entropy = systemEntropy, events } = surroundings;
    const { clock = new SystemClock((thrown) => failed(events, 'timer', thrown)) } = surroundings;
    if (!config.lwm2m) throw new PosternError('configuration', 'lwm2m: this table is missing');
    this.#config = config;
    this.#settings = config.lwm2m;
    this.#clock = clock;
    this.#entropy = entropy;
    this.#events = events;
    const { interface: where } = config.network;
    this.#reports = new LwM2mReports({
      objects: this.#objects,
      written: (entries) => {
        for (const entry of entries) this.#written(entry.path, [entry]);
      },
      clock,
    });
    this.#keys = new ClientKeys({ config, objects: this.#objects, events });
    const { contextFor } = this.#keys;
    const protection = protectionOf(config, { clock, entropy, events, contextFor });
    this.#coap = new CoapStack(
      clock,
      where,
      (request) => this.#asked(request),
      events,
      protection,
      this.#keys,
    );
    this.#firmware = new LwM2mFirmware({
      device: this.id,
      objects: this.#objects,
      download: (uri) => this.#coap.download(uri),
      installed: () => this.#restart('new firmware was installed'),
      events,
    });
    this.#attached.promise.catch(() => {});
    this.#furnish();
  }

  get id(): string {
    return this.#config.device.id;
  }

  /** Resolves when the device has registered for the first time since its start. Rejects when it stops before. */
  get attached(): Promise<void> {
    return this.#attached.promise;
  }

  /** Value of the resource at a path such as `/3/0/15`. `undefined` when there is none. */
  value(path: string): unknown {
    return this.#objects.value(...parsePath(path));
  }

  /** Sets the value of a resource, as a sensor does. Observers are told as their conditions say. */
  set(path: string, value: Value): void {
    const [object = 0, instance = 0, resource = 0] = parsePath(path);
    this.#objects.put([object, instance], { [resource]: value });
  }

  /** Number of observations of its resources. */
  get observations(): number {
    return this.#reports.observations;
  }

  /**
   * Sends the values at these paths unasked (Send, LwM2M core 1.1, section 6.4.6). Registers again when the server does not know the
   * device any more.
   * @throws {PosternError} `notFound` without a registration or a value, `timeout`, `unavailable`
   */
  async send(paths: readonly string[]): Promise<void> {
    const { base } = this.#registration ?? {};
    if (base === undefined) throw new PosternError('notFound', `${this.id} is not registered`);
    const time = this.#clock.wall() / 1000;
    const entries = paths.flatMap((path) => this.#objects.read(parsePath(path)));
    const { code } = await this.#coap.request({
      method: 'POST',
      base,
      path: '/dp',
      contentFormat: ContentFormat.SenmlCbor,
      payload: encodeContent(
        ContentFormat.SenmlCbor,
        entries.map((entry) => ({ ...entry, time })),
        [],
      ),
      timeout,
    });
    if (code === '4.04') await this.#register(base);
    if (code !== '2.04') throw new PosternError('unavailable', `the values were refused with ${code}`);
  }

  /**
   * Opens the socket. Registering continues in the background.
   * @throws {PosternError} `configuration`
   */
  async start(): Promise<void> {
    await this.#coap.open();
    const { id: deviceId } = this;
    const parts = { deviceId, clock: this.#clock, entropy: this.#entropy, events: this.#events };
    const { signal } = this.#stop;
    const run = () => untilAttached({ ...parts, signal }, () => this.#stay());
    this.#running = persistently(parts, 'device', run, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#stop.signal.aborted) return;
    this.#stop.abort();
    this.#reports.clear();
    this.#attached.reject(new PosternError('unavailable', 'the device stops'));
    await this.#coap[Symbol.asyncDispose]();
    await this.#running;
    await this.#firmware.settled;
  }

  /**
   * Deletes its registration.
   * @throws {PosternError} `notFound` when it has none, `timeout`, `unavailable`
   */
  async detach(): Promise<void> {
    const registration = this.#registration;
    if (!registration) throw new PosternError('notFound', `${this.id} is not registered`);
    this.#registration = undefined;
    await this.#coap.request({ method: 'DELETE', ...registration, timeout });
  }

  /**
   * Renews its registration now, and registers again when the server has lost it.
   * @throws {PosternError} `timeout`, `unavailable`
   */
  async update(): Promise<void> {
    const registration = this.#registration;
    if (!registration) return;
    const { code } = await this.#coap.request({ method: 'POST', ...registration, timeout });
    if (code === '4.04') await this.#register(registration.base);
    else if (!code.startsWith('2.'))
      throw new PosternError('unavailable', `the update was refused with ${code}`);
  }

  /** Sets the initial objects. */
  #furnish(): void {
    const { manufacturer, model, firmware } = this.#config.device;
    this.#objects.put([ObjectId.Device, 0], {
      0: manufacturer,
      1: model,
      2: this.id,
      3: firmware,
      9: 87,
      13: Math.floor(this.#clock.wall() / 1000),
      14: '+00:00',
      15: 'Etc/UTC',
      16: 'U',
      17: 'thermometer',
    });
    this.#objects.onExecute([ObjectId.Device, 0, 4], () => this.#restart('the server executed Reboot'));
    // A bootstrap writes this instance. Without one it is there from the factory.
    if (this.#settings.bootstrap) this.#objects.put([ObjectId.Security, 0], { 1: true });
    else this.#objects.put([ObjectId.Server, 0], { [ServerResource.Lifetime]: this.#settings.lifetime });
    this.#objects.onExecute([ObjectId.Server, 0, ServerResource.RegistrationUpdateTrigger], () =>
      this.#afterwards(() => this.update()),
    );
    this.#firmware.furnish();
    this.#objects.put([temperature, 0], { 5700: 21.5, 5701: 'Cel', 5750: 'hall' });
    this.#objects.put([light, 0], { 5850: false, 5851: 40 });
  }

  /** Attaches, and then renews the registration until this fails. */
  async #stay(): Promise<void> {
    await this.#becomeAttached();
    this.#attached.resolve();
    const watch = {
      deviceId: this.id,
      clock: this.#clock,
      events: this.#events,
      signal: this.#stop.signal,
      address: () => this.#registration && this.#coap.addressTowards(this.#registration.base),
    };
    for (;;) {
      await untilMoved(watch, halfway(this.#clock, this.#lifetime));
      await this.update();
    }
  }

  /** Lifetime of the registration in seconds: from the bootstrap, else from the configuration. */
  get #lifetime(): number {
    const given = this.#objects.value(ObjectId.Server, 0, ServerResource.Lifetime);
    return typeof given === 'number' ? given : this.#settings.lifetime;
  }

  async #becomeAttached(): Promise<void> {
    const { gateway, 'multicast-port': port } = this.#config.network;
    const { bootstrap } = this.#settings;
    const wanted = bootstrap ? 'oma.lwm2m.bs' : 'core.rd';
    const found = gateway ?? (await this.#coap.discover(port, `rt=${wanted}`, discoveryTimeout))?.base;
    if (found === undefined) throw new PosternError('timeout', 'no gateway answered the multicast');
    const { links, secure } = await this.#coap.linksOf(found, `rt=${wanted}`, discoveryTimeout);
    const isOscore = this.#config.oscore !== undefined || this.#config.device.security === 'oscore';
    const base = (!isOscore && secure) || found;
    this.#events.emit('device.discovered', {
      device: this.id,
      gateway: base,
      resources: links.map(({ target }) => target).join(' '),
    });
    await this.#register(bootstrap ? await this.#becomeBootstrapped(base) : base);
  }

  /** Asks for a bootstrap (LwM2M core 1.1, section 6.1). Returns the address of the server, `coap://host:port`. */
  async #becomeBootstrapped(base: string): Promise<string> {
    this.#finished = Promise.withResolvers<void>();
    const restore = this.#objects.saved(accountObjects);
    try {
      await this.#awaitBootstrap(base, this.#finished.promise);
      if (!serverAccount(this.#objects)) throw new PosternError('malformed', 'the bootstrap names no server');
    } catch (thrown) {
      // Without a Bootstrap-Finish the former account stays in force.
      restore();
      if (this.#stop.signal.aborted || !serverAccount(this.#objects)) throw thrown;
      const { code, message: reason } = asPosternError(thrown);
      this.#events.emit('device.attach-failed', { device: this.id, code, reason });
    } finally {
      this.#finished = undefined;
      const { identity } = this.#keys.factory() ?? {};
      if (identity !== undefined) this.#coap.release(base, identity);
    }
    const { uri } = serverAccount(this.#objects)!;
    this.#events.emit('device.account-taken', { device: this.id, gateway: uri });
    const { host, port, scheme } = parseCoapUri(uri);
    return coapBase(host, port, scheme);
  }

  async #awaitBootstrap(base: string, finished: Promise<void>): Promise<void> {
    const { code } = await this.#coap.request({
      method: 'POST',
      base,
      path: '/bs',
      query: `ep=${this.id}`,
      timeout,
    });
    if (code !== '2.04') throw new PosternError('forbidden', `the bootstrap server refused with ${code}`);
    const late = pause(this.#clock, timeout, this.#stop.signal).then(() => {
      throw new PosternError('timeout', `the bootstrap was not finished in ${timeout} ms`);
    });
    await Promise.race([finished, late]);
  }

  async #register(base: string): Promise<void> {
    // The server observes anew after it.
    this.#reports.clear();
    const links = [
      { target: '/', attributes: { rt: 'oma.lwm2m', ct: String(ContentFormat.SenmlCbor) } },
      ...this.#objects.registered.map((path) => ({ target: pathText(path), attributes: {} })),
    ];
    const query = [`ep=${this.id}`, `lt=${this.#lifetime}`, 'lwm2m=1.1', 'b=U'];
    if (this.#settings['queue-mode']) query.push('Q');
    const { code, location } = await this.#coap.request({
      method: 'POST',
      base,
      path: '/rd',
      query: query.join('&'),
      contentFormat: ContentFormat.LinkFormat,
      payload: Buffer.from(formatLinks(links)),
      timeout,
    });
    if (code !== '2.01') throw new PosternError('unavailable', `the registration was refused with ${code}`);
    this.#registration = { base, path: location };
    this.#events.emit('device.attach-done', { device: this.id, gateway: base });
  }

  #asked(request: StackIncoming): StackAnswer {
    const { method, url, payload, contentFormat, accept } = request;
    const [pathname = ''] = url.split('?');
    if (pathname === '/bs' && method === 'POST') {
      this.#finished?.resolve();
      return { code: '2.04' };
    }
    const reported = this.#reports.answer(request);
    if (reported) return reported;
    const path = parsePath(pathname);
    switch (method) {
      case 'GET':
        return this.#read(path, accept);
      case 'PUT':
        return this.#write(path, payload, contentFormat);
      case 'DELETE':
        if (path.length > 0 && !accountObjects.includes(path[0]!)) this.#objects.delete(path);
        else if (!this.#finished) return { code: '4.05' };
        else this.#forgetAccounts(path);
        return { code: '2.02' };
      case 'POST':
        return this.#post(path, payload, contentFormat);
      default:
        return { code: '4.05' };
    }
  }

  /** A bootstrap deletes all accounts at a path but that for the bootstrap server itself (LwM2M core 1.1, section 6.1.7.5). */
  #forgetAccounts(at: Path): void {
    for (const path of this.#accounts)
      if (isBelow(path, at) && this.#objects.value(...path, 1) !== true) this.#objects.forget(path);
  }

  get #accounts(): readonly Path[] {
    return accountObjects.flatMap((object) => this.#objects.instances(object));
  }

  /**
   * Answer to a Bootstrap-Discover (section 6.1.7.3): the account for the bootstrap server is the one without `ssid`. A security
   * context belongs to the account that links to it.
   */
  #accountLinks(): readonly Link[] {
    const at = (path: Path, resource: number) => this.#objects.value(...path, resource);
    const ssidOf = (path: Path): unknown => {
      if (path[0] === ObjectId.Server) return at(path, 0);
      const linked = this.#objects
        .instances(ObjectId.Security)
        .find((each) => String(at(each, 17) ?? '') === path.join(':'));
      return at(linked ?? path, 10);
    };
    return this.#accounts.map((path) => {
      const ssid = ssidOf(path);
      return { target: pathText(path), attributes: ssid === undefined ? {} : { ssid: String(ssid) } };
    });
  }

  #read(path: Path, accept = ContentFormat.SenmlCbor as number): StackAnswer {
    if (accept === ContentFormat.LinkFormat)
      return {
        code: '2.05',
        payload: Buffer.from(
          formatLinks(path.length === 0 ? this.#accountLinks() : this.#objects.discover(path)),
        ),
        contentFormat: accept,
      };
    const entries = this.#objects.read(path);
    try {
      return { code: '2.05', payload: encodeContent(accept, entries, path), contentFormat: accept };
    } catch {
      return { code: '4.06' };
    }
  }

  #write(path: Path, payload: Uint8Array, contentFormat: number | undefined): StackAnswer {
    const entries = decodeContent(contentFormat, payload, path);
    const [object] = path;
    // Only a bootstrap server may write accounts, and only during a bootstrap.
    const isAccount =
      object === ObjectId.Security ||
      object === ObjectId.Oscore ||
      (object === ObjectId.Server && path.length < 3);
    if (isAccount && !this.#finished)
      throw new PosternError('forbidden', 'accounts can be written by a bootstrap only');
    if (isAccount)
      this.#objects.put(path, Object.fromEntries(entries.map((entry) => [entry.path[2], entry.value])));
    else {
      this.#objects.write(path, entries);
      this.#written(path, entries);
    }
    return { code: '2.04' };
  }

  #written(path: Path, entries: readonly Entry[]): void {
    this.#events.emit('device.written', { device: this.id, path: pathText(path) });
    this.#firmware.written(path, entries[0]?.value);
  }

  #post(path: Path, payload: Uint8Array, contentFormat: number | undefined): StackAnswer {
    if (path.length === 3) {
      this.#objects.execute(path, Buffer.from(payload).toString());
      this.#events.emit('device.executed', { device: this.id, path: pathText(path) });
      return { code: '2.04' };
    }
    if (path.length === 2) {
      this.#objects.write(path, decodeContent(contentFormat, payload, path));
      return { code: '2.04' };
    }
    const [object = -1] = path;
    // A Create without an instance ID lets the client choose it (LwM2M core 1.1, section 6.3.7).
    const entries = decodeContent(contentFormat, payload, path);
    const [named] = contentFormat === ContentFormat.LwM2mTlv ? instancesIn(payload) : [];
    const instance = named ?? entries[0]?.path[1] ?? this.#objects.instances(object).length;
    this.#objects.create(object, instance, entries);
    return { code: '2.01' };
  }

  /** Registers again, as after a reboot. */
  #restart(reason: string): void {
    this.#events.emit('device.restarts', { device: this.id, reason });
    const { base } = this.#registration ?? {};
    if (base !== undefined) this.#afterwards(() => this.#register(base));
  }

  /** Does something that sends a request. The delay lets the response to the current request go out first. */
  #afterwards(work: () => Promise<void>): void {
    this.#clock.after(0, () => {
      if (this.#stop.signal.aborted) return;
      void background(this.#events, 'device', () => this.#try(work));
    });
  }

  async #try(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      this.#events.emit('device.attach-failed', { device: this.id, code, reason: message });
    }
  }
}
