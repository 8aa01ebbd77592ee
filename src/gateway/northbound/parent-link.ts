import { background, guarded, persistently } from '../../base/background.ts';
import { type Clock, type Monotonic, pause, plus } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, errorOfCoap, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { FairWindow } from '../../base/fair-window.ts';
import { backoff } from '../../base/retry.ts';
import { hmacHeader } from '../../dm/hmac-header.ts';
import { accountOf, requestBootstrap } from '../../mo/bootstrap-request.ts';
import type { Accounts, DmAccount } from '../../mo/dm-acc.ts';
import { type Block, packBlock } from '../../wire/coap/blockwise.ts';
import type { CoapAnswer, CoapCall } from '../../wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../wire/coap/codes.ts';
import { contentFormatOf, mediaTypeOf } from '../../wire/coap/content-formats.ts';
import type { Remote } from '../../wire/coap/message.ts';
import { Option, opaque, optionValue, text, uint, uintOption } from '../../wire/coap/options.ts';
import { parseCoapUri } from '../../wire/coap/uri.ts';
import { paths } from '../../wire/resources.ts';
import { type Envelope, EnvelopeKind } from '../../wire/tunnel/envelope.ts';
import {
  hasKey,
  ParentAssociation,
  type ParentAssociationParts,
  parentCredential,
} from './parent-association.ts';
import type { Uplink, UplinkListener, UpRequest } from './uplink.ts';

export interface ParentLinkParts {
  readonly gatewayId: string;
  /** ServerID of the parent, which is its gateway name. */
  readonly parentId: string;
  /** URI of the parent, such as `coaps://192.0.2.1:5684`. */
  readonly uri: string;
  /** Secret by which the parent's bootstrap server knows this gateway. */
  readonly factorySecret: string;
  readonly accounts: Accounts;
  /** Runs what stores a new account at the parent, and has all devices reported to the parent, in one transaction. */
  readonly join: (store: () => void) => void;
  /**
   * Sends a CoAP request from the endpoint that serves this gateway's devices, so the parent can reach it there too.
   */
  readonly call: (address: string, port: number, call: CoapCall, heardOn?: string) => Promise<CoapAnswer>;
  /** Whether the parent answers a CoAP ping within `timeout` milliseconds. */
  readonly answers: (address: string, port: number, timeout: number, heardOn?: string) => Promise<boolean>;
  /** DTLS, for a parent with a coaps URI. */
  readonly transport: ParentAssociationParts['transport'] | undefined;
  /** The local address from which `call` sends to an address; undefined without a way there. */
  readonly sourceTowards: (address: string) => string | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Milliseconds between attempts to reach the parent. */
const retry = { first: 1000, cap: 60_000, jitter: 0.5 } as const;
/** Milliseconds for the bootstrap exchange with the parent. */
const directTimeout = 20_000;
/** Milliseconds for one block of a download. */
const blockTimeout = 30_000;
/** Milliseconds for a sign of life of the parent: time enough for three transmissions. */
const signTimeout = 7000;
/** Milliseconds for which a request through the association waits, and waits again, before the parent is asked for a sign of life. */
const doubtAfter = 4000;
/** Reasons that are told once until the parent is connected. */
const reasons = 16;
/**
 * Packages on their way to the parent. The CoAP endpoint allows 16 requests to one peer; the rest is for other requests.
 * Further packages wait.
 */
const flow = { width: 12, waiting: 1024, bytes: 8 * 1024 * 1024 } as const;

/**
 * The uplink of a child DM Gateway (GwMO 1.1): its parent gateway, over CoAP with DTLS, or over plain CoAP where that is allowed by name. For the parent, this gateway is a device.
 * It gets an account from the parent's bootstrap server, attaches by a session, and sends packages for other DM servers
 * through the parent's tunnel.
 */
export class ParentLink implements Uplink {
  readonly #parts: ParentLinkParts;
  readonly #timeout: number;
  readonly #host: string;
  readonly #port: number;
  readonly #stop = new AbortController();
  /** Aborted when the parent is lost. Another one follows. */
  #gone = new AbortController();
  #running: Promise<void> | undefined;
  readonly #window = new FairWindow(flow);
  #connected = false;
  /** Undefined over plain CoAP. */
  readonly #association: ParentAssociation | undefined;
  /** Why the parent was not reached. */
  #failure: string | undefined;
  /** Reasons that were told since the parent was connected last. */
  readonly #told = new Set<string>();
  /** The parent did not take the key of the account the last time. A bootstrap is tried next, and the account stays until it succeeds. */
  #isKeyRefused = false;
  #nextAttempt: Monotonic | undefined;
  /** The own address that the parent knows. */
  #source: string | undefined;
  #listener: UplinkListener | undefined;

  /** @param timeout milliseconds within which a DM server must answer a package */
  constructor(parts: ParentLinkParts, timeout: number) {
    this.#parts = parts;
    this.#timeout = timeout;
    const { scheme, host, port } = parseCoapUri(parts.uri);
    this.#host = host;
    this.#port = port;
    const { transport, gatewayId, parentId } = parts;
    if (scheme === 'coaps' && transport)
      this.#association = new ParentAssociation({
        gatewayId,
        parentId,
        host,
        port,
        factorySecret: () => parts.factorySecret,
        transport,
        ended: () => this.#lost(),
      });
  }

  get connected(): boolean {
    return this.#connected;
  }

  get description() {
    const { uri: url, clock } = this.#parts;
    const at = this.#nextAttempt;
    return {
      url,
      protocol: this.#association ? 'CoAP over DTLS' : 'CoAP without security',
      waiting: this.#window.waiting + this.#window.running,
      ...(!this.#connected && this.#failure !== undefined && { reason: this.#failure }),
      ...(at !== undefined && { retryInSeconds: Math.max(0, Math.ceil((at - clock.now()) / 1000)) }),
    };
  }

  /** What is above the parent is unknown here. A package that is too large there is answered with 4.13. */
  get largestBody(): number {
    return Number.POSITIVE_INFINITY;
  }

  /** Whether a request comes from the parent: by its key, or over plain CoAP from its address. */
  isParent({ address, credential }: Remote): boolean {
    return this.#association ? credential === parentCredential : address === this.#host;
  }

  start(listener: UplinkListener): void {
    this.#listener = listener;
    this.#reconnect();
  }

  /**
   * Must be called when the addresses of this gateway have changed. Then the parent may know this gateway at an address
   * that is gone. The reconnect lets the parent hear from the new one.
   */
  addressesChanged(): void {
    const source = this.#parts.sourceTowards(this.#host);
    if (!this.#connected || source === undefined || source === this.#source) return;
    this.#connected = false;
    this.#listener?.disconnected();
    this.#reconnect();
  }

  #reconnect(): void {
    const { signal } = this.#stop;
    this.#running ??= persistently(this.#parts, 'parent-link', () => this.#connect(), signal).then(() => {
      this.#running = undefined;
      if (!this.#connected && !signal.aborted) this.#reconnect();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const stops = new PosternError('unavailable', 'the gateway stops');
    this.#stop.abort(stops);
    this.#window.refuseWaiting(stops);
    await this.#running;
    this.#association?.close();
  }

  async request(request: UpRequest): Promise<Envelope> {
    const { gatewayId, parentId } = this.#parts;
    const { device = gatewayId, server, via, peer } = request;
    if (this.#connected && this.#association?.isOpen(this.#account) === false) this.#lost();
    if (!this.#connected) throw new PosternError('unavailable', 'the parent gateway is not connected');
    const isDirect = server === parentId && request.device === undefined;
    const path = isDirect ? paths.sessions : `${paths.tunnel}/${server}`;
    const chain = via === undefined ? gatewayId : `${via}/${gatewayId}`;
    const query = isDirect ? [] : [`id=${device}`, ...(request.device === undefined ? [] : [`via=${chain}`])];
    if (request.device !== undefined && peer !== undefined) query.push(`peer=${peer}`);
    const answer = await this.#window.run(request.flow ?? device, request.body.length, () =>
      this.#send(path, query, request),
    );
    return this.#envelope(request, answer);
  }

  /**
   * Gets one block of a resource of the parent, or the error that it answers.
   * @param path segments
   * @throws {PosternError} `unavailable` when the parent is not connected, or is lost meanwhile; `timeout` when it is silent
   */
  async block(
    path: readonly string[],
    query: readonly string[],
    block: Block,
    signal: AbortSignal,
  ): Promise<CoapAnswer> {
    if (!this.#connected) throw new PosternError('unavailable', 'the parent gateway is not connected');
    const options = [uint(Option.Block2, packBlock(block))];
    return await this.#ask({ method: Code.GET, path, query, options, timeout: blockTimeout, signal });
  }

  /** Sends a package. A 5.04 is an answer: the DM server was too slow. */
  async #send(path: string, query: readonly string[], { contentType, body, headers }: UpRequest) {
    const hmac = headers?.[hmacHeader];
    const contentFormat = contentFormatOf(contentType);
    return await this.#ask({
      method: Code.POST,
      path: segments(path),
      query,
      ...(contentFormat !== undefined && { contentFormat }),
      payload: body,
      ...(hmac !== undefined && { options: [text(Option.SyncmlHmac, hmac)] }),
      timeout: this.#timeout,
    });
  }

  /** Sends a request to a parent that is connected. A parent that does not answer is lost. */
  async #ask(call: CoapCall): Promise<CoapAnswer> {
    using _doubt = this.#doubting();
    try {
      return await this.#call(call);
    } catch (thrown) {
      if (asPosternError(thrown).code === 'timeout') this.#lost();
      throw thrown;
    }
  }

  /**
   * Watches a request through the association. A parent that has lost the association is silent to everything that comes through
   * it. A parent whose DM server is slow answers a ping. So one without an answer to either needs another handshake.
   */
  #doubting(): Disposable {
    const { clock, events, answers } = this.#parts;
    const association = this.#association;
    if (!association) return { [Symbol.dispose]: () => {} };
    const { signal } = this.#gone;
    const ask = async () => {
      // A ping that could not be sent says nothing.
      const isThere = await answers(this.#host, this.#port, signTimeout, this.#source).catch(() => true);
      if (isThere || signal.aborted) return;
      association.close();
      this.#lost();
    };
    const arm = () =>
      clock.after(
        doubtAfter,
        guarded(events, 'parent-link', () => {
          timer = arm();
          void background(events, 'parent-link', ask);
        }),
      );
    let timer = arm();
    return { [Symbol.dispose]: () => timer.cancel() };
  }

  /**
   * Turns the parent's CoAP answer into an envelope, as a broker would have delivered it.
   * @throws {PosternError} `unavailable` for 5.03, `timeout` for 5.04
   */
  #envelope({ device, server }: UpRequest, { code, options, payload }: CoapAnswer): Envelope {
    const { accounts, parentId } = this.#parts;
    const base = { correlation: new Uint8Array(), server, ...(device !== undefined && { device }) };
    if (isSuccess(code)) {
      const hmac = optionValue(options, Option.SyncmlHmac);
      const contentType = mediaTypeOf(uintOption(options, Option.ContentFormat) ?? -1);
      return {
        kind: EnvelopeKind.Response,
        ...base,
        body: payload,
        ...(contentType !== undefined && { contentType }),
        ...(hmac && { headers: { [hmacHeader]: Buffer.from(hmac).toString() } }),
      };
    }
    const reason = Buffer.from(payload).toString();
    if (code === Code.ServiceUnavailable) throw new PosternError('unavailable', reason);
    if (code === Code.GatewayTimeout) throw new PosternError('timeout', reason);
    // The parent no longer knows this gateway. Without the account, the reconnect starts with a bootstrap.
    if (code === Code.Forbidden && server === parentId) {
      const name = accounts.nodeName(parentId);
      if (name !== undefined) accounts.branch.delete([name]);
      this.#lost();
    }
    const { dmStatus: status } = new PosternError(errorOfCoap(codeText(code)), reason);
    return { kind: EnvelopeKind.Error, ...base, status, reason };
  }

  /** Tries to reach the parent until it succeeds. Bootstraps first when there is no account for the parent. */
  async #connect(): Promise<void> {
    const { parentId, events, clock, entropy } = this.#parts;
    const delays = backoff(retry, entropy);
    while (!this.#stop.signal.aborted) {
      const account = this.#isKeyRefused ? undefined : this.#account;
      this.#isKeyRefused = false;
      try {
        this.#source = this.#parts.sourceTowards(this.#host);
        await this.#association?.open(account, this.#source);
        if (!account) await this.#bootstrap();
        // From now on by the key of the account, which the parent did not see before.
        await this.#association?.open(this.#account, this.#source);
        if (account || this.#association) await this.#greet();
        // The address has changed meanwhile.
        if (this.#parts.sourceTowards(this.#host) !== this.#source) continue;
        this.#connected = true;
        this.#failure = undefined;
        this.#told.clear();
        events.emit('parent.connected', { parent: parentId });
        void background(events, 'uplink', () => this.#listener?.connected());
        return;
      } catch (thrown) {
        if (this.#stop.signal.aborted) return;
        const { message, code } = asPosternError(thrown);
        this.#isKeyRefused = account !== undefined && code === 'forbidden';
        // A parent that has lost the association is silent to what comes by it.
        if (code === 'timeout') this.#association?.close();
        if (!this.#told.has(message) && this.#told.size < reasons) {
          this.#told.add(message);
          events.emit('parent.unreachable', { parent: parentId, reason: message });
        }
        this.#failure = message;
        const delay = delays.next().value;
        this.#nextAttempt = plus(clock.now(), delay);
        await pause(clock, delay, this.#stop.signal).catch(() => {});
        this.#nextAttempt = undefined;
      }
    }
  }

  /** The account at the parent. Over DTLS one without a key is none. */
  get #account(): DmAccount | undefined {
    const account = this.#parts.accounts.find(this.#parts.parentId);
    return account && (!this.#association || hasKey(account)) ? account : undefined;
  }

  /** Checks by discovery that the parent answers. */
  async #greet(): Promise<void> {
    const query = [`href=${paths.sessions}`];
    const path = segments('/.well-known/core');
    const { code } = await this.#call({ method: Code.GET, path, query, timeout: signTimeout });
    if (!isSuccess(code)) throw new PosternError('unavailable', `the parent answered ${codeText(code)}`);
  }

  /** Gets an account from the parent's local bootstrap server and stores it. */
  async #bootstrap(): Promise<void> {
    const { gatewayId, parentId, factorySecret, entropy, accounts, events } = this.#parts;
    const issued = await requestBootstrap(gatewayId, factorySecret, entropy, async (options, payload) => {
      const answer = await this.#call({
        method: Code.POST,
        path: segments(paths.bootstrap),
        query: [`id=${gatewayId}`],
        options: Object.entries(options).map(([number, value]) => opaque({ number: Number(number) }, value)),
        timeout: directTimeout,
        ...(payload && { payload }),
      });
      return {
        isSuccess: isSuccess(answer.code),
        description: `${codeText(answer.code)}: ${Buffer.from(answer.payload).toString()}`,
        contentFormat: uintOption(answer.options, Option.ContentFormat),
        payload: answer.payload,
        option: (number) => answer.options.find((option) => option.number === number)?.value,
      };
    });
    const account = accountOf(issued, gatewayId, factorySecret);
    if (account.serverId !== parentId)
      throw new PosternError(
        'configuration',
        `parent.id: the gateway there is ${account.serverId}, not ${parentId}`,
      );
    if (this.#association && !hasKey(account))
      throw new PosternError('configuration', 'the parent gives no key for DTLS with its account');
    this.#parts.join(() => accounts.put(account));
    events.emit('parent.bootstrapped', { parent: parentId });
  }

  /** Marks the uplink as disconnected and starts to reconnect. */
  #lost(): void {
    if (!this.#connected || this.#stop.signal.aborted) return;
    this.#connected = false;
    const silent = new PosternError('unavailable', 'the parent gateway does not answer');
    this.#window.refuseWaiting(silent);
    this.#gone.abort(silent);
    this.#gone = new AbortController();
    this.#parts.events.emit('parent.lost', { parent: this.#parts.parentId });
    void background(this.#parts.events, 'uplink', () => this.#listener?.disconnected());
    this.#reconnect();
  }

  async #call(call: CoapCall): Promise<CoapAnswer> {
    // Nothing for the parent goes over plain CoAP because there is no association just now.
    if (this.#association?.isThere === false)
      throw new PosternError('timeout', 'the association with the parent has ended');
    return await this.#parts.call(
      this.#host,
      this.#port,
      {
        ...call,
        signal: AbortSignal.any([
          this.#stop.signal,
          this.#gone.signal,
          ...(call.signal ? [call.signal] : []),
        ]),
      },
      this.#source,
    );
  }
}

const segments = (path: string): string[] => path.split('/').filter((segment) => segment !== '');
