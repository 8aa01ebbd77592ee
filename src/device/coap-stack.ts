import type { IncomingMessage, OutgoingMessage } from 'coap';
import { failed, guarded } from '../base/background.ts';
import { type Clock, pause } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { type Events, noEvents } from '../base/events.ts';
import { parseLinks } from '../wire/coap/link-format.ts';
import { Option, writeUint } from '../wire/coap/options.ts';
import { coapBase, coapUri, parseCoapUri } from '../wire/coap/uri.ts';
import { Block2Body } from './block2-body.ts';
import {
  type Answering,
  answer,
  type Discovered,
  discoveredAt,
  linksIn,
  read,
  type StackRequest,
  type StackResponse,
} from './coap-messages.ts';
import { CoapSockets, type SocketListener } from './coap-sockets.ts';
import type { ProtectedDatagrams } from './protected-datagrams.ts';
import { SecureLinks, type SecureLinksParts } from './secure-links.ts';
import type { SecurePeer } from './secure-socket.ts';

/** Size exponent of the blocks of a download (RFC 7959 section 2.2). */
const downloadExponent = 6;
/** Bytes of a block with this exponent. */
const downloadBlock = 1024;
/** Milliseconds for one attempt of a download. */
const downloadTimeout = 30_000;
/** Attempts in a row without any new block, after which a download fails. */
const downloadAttempts = 5;
/** Versions of a body of which a download had only a part, after which it fails. */
const downloadVersions = 5;
/** Most bytes of a response, and of a download. */
const bodyLimits = { response: 1024 * 1024, download: 64 * 1024 * 1024 } as const;

/** Bytes of a request body beyond which it is sent in blocks. */
const blockwiseFrom = 1024;
/** Size exponent of these blocks: 512 bytes. */
const blockExponent = 5;

/** A pre-shared key and its identity. */
export type StackKey = Pick<SecurePeer, 'identity' | 'key'>;

/** Keys of the device for CoAP over DTLS, and what it does when associations come and go. */
export interface StackSecurity extends Pick<SecureLinksParts, 'opened' | 'lost' | 'refused'> {
  /** The key for a request to this base and path. */
  readonly keyFor: (base: string, path: string) => StackKey | undefined;
}

const noSecurity: StackSecurity = {
  keyFor: () => undefined,
  opened: () => {},
  lost: () => {},
  refused: () => {},
};

/**
 * The CoAP client and server of the device, made from the `coap` package. Both use one socket of each family, so the
 * gateway can send requests to the address where it heard the device. It deliberately shares no message layer with the
 * gateway: whenever the two talk, two independent CoAP implementations are tested against each other.
 */
export class CoapStack implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #sockets: CoapSockets;
  readonly #links: SecureLinks;
  readonly #security: StackSecurity;
  readonly #events: Events;
  readonly #stop = new AbortController();

  /**
   * @param where IP address or name of the interface to use; undefined for all
   * @param protection what protects the datagrams; nothing if absent
   * @param security keys for CoAP over DTLS; without it there is none
   */
  constructor(
    clock: Clock,
    where: string | undefined,
    answering: Answering,
    events: Events = noEvents,
    protection?: ProtectedDatagrams,
    security: StackSecurity = noSecurity,
  ) {
    this.#clock = clock;
    this.#events = events;
    this.#security = security;
    const served = (isProtected: boolean) =>
      guarded(events, 'device-coap', (request: IncomingMessage, response: OutgoingMessage) =>
        answer(request, response, answering, isProtected),
      );
    const listener: SocketListener = {
      // With OSCORE below, only what is protected comes up.
      request: served(protection !== undefined),
      failed: this.#failed,
      under: protection && ((socket) => protection.under(socket)),
    };
    this.#sockets = new CoapSockets(where, listener);
    this.#links = new SecureLinks({
      ...security,
      listener: { ...listener, request: served(true) },
      events,
      local: this.#sockets.address,
      sourceTowards: (host) => this.#sockets.sourceTowards(host)?.address,
    });
  }

  /** Counts an error that the package reports without a request that waits for it. */
  readonly #failed = (error: unknown): void => {
    if (!this.#stop.signal.aborted) failed(this.#events, 'device-coap', error);
  };

  /**
   * Binds its sockets to free ports.
   * @throws {PosternError} `configuration` when the address cannot be used
   */
  async open(): Promise<void> {
    await this.#sockets.open();
  }

  /**
   * The address of this device as a URI without a path, as the host of a base sees it. It may change at any time.
   * Undefined when there is no way to that host.
   */
  addressTowards(base: string): string | undefined {
    const source = this.#sockets.sourceTowards(parseCoapUri(base).host);
    return source && coapUri(source.address, source.port);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the device stops'));
    await this.#links[Symbol.asyncDispose]();
    await this.#sockets[Symbol.asyncDispose]();
  }

  /**
   * Sends a confirmable request. Resolves with the response, whatever its code. Bodies of any size are transferred in
   * blocks (RFC 7959).
   * @throws {PosternError} `timeout`; `unavailable` when the exchange fails or the device stops; `conflict`, `tooLarge`
   *   and `unavailable` as `Block2Body`
   */
  async request({
    method,
    base,
    path,
    query,
    contentFormat,
    accept,
    options = {},
    payload,
    timeout,
    block2,
    body = new Block2Body(bodyLimits.response),
  }: StackRequest): Promise<StackResponse> {
    const { host, port, scheme } = parseCoapUri(base);
    this.#stop.signal.throwIfAborted();
    const secured = scheme === 'coaps' ? this.#keyFor(base, path) : undefined;
    const link = secured && (await this.#links.towards(base, secured));
    this.#stop.signal.throwIfAborted();
    const { agent } = link ?? this.#sockets.towards(host);
    const outgoing = agent.request({
      host,
      port,
      method,
      pathname: path,
      ...(query !== undefined && { query }),
    });
    if (contentFormat !== undefined) outgoing.setOption('Content-Format', writeUint(contentFormat));
    if (accept !== undefined) outgoing.setOption('Accept', writeUint(accept));
    for (const [number, value] of Object.entries(options)) outgoing.setOption(number, Buffer.from(value));
    // The package sets later Block2 options by name. If the first were set by number, it would send both.
    if (block2) outgoing.setOption('Block2', Buffer.from(block2));
    if (payload && payload.length > blockwiseFrom) {
      outgoing.setOption(String(Option.Size1.number), writeUint(payload.length));
      outgoing.setOption('Block1', Buffer.of(blockExponent));
    }
    const { promise, resolve, reject } = Promise.withResolvers<StackResponse>();
    outgoing.on('response', (incoming: IncomingMessage) => {
      try {
        resolve(read(incoming));
      } catch (thrown) {
        reject(thrown);
      }
    });
    outgoing.on('error', (cause: Error) =>
      reject(new PosternError('unavailable', `CoAP: ${cause.message}`, { cause })),
    );
    outgoing.on('timeout', () => reject(new PosternError('timeout', `no answer from ${base}${path}`)));
    outgoing.end(payload && Buffer.from(payload));
    using _watch = agent.watch(outgoing, body, reject);
    const timer = this.#clock.after(timeout, () =>
      reject(new PosternError('timeout', `no answer from ${base}${path} in ${timeout} ms`)),
    );
    const ended = () => reject(new PosternError('unavailable', `${base} has ended the association`));
    link?.ended.addEventListener('abort', ended, { once: true });
    const stopped = () => reject(this.#stop.signal.reason);
    this.#stop.signal.addEventListener('abort', stopped, { once: true });
    if (this.#stop.signal.aborted) stopped();
    try {
      return await promise;
    } catch (thrown) {
      if (!this.#stop.signal.aborted) agent.abort(outgoing);
      // The gateway may have lost the association. The next request then has a new one.
      if (secured && asPosternError(thrown).code === 'timeout') this.#links.drop(base, secured.identity);
      throw thrown;
    } finally {
      timer.cancel();
      link?.ended.removeEventListener('abort', ended);
      this.#stop.signal.removeEventListener('abort', stopped);
    }
  }

  /** Ends the association that was opened with this key. */
  release(base: string, identity: string): void {
    this.#links.drop(base, identity);
  }

  /** @throws {PosternError} `unavailable` without a key */
  #keyFor(base: string, path: string): StackKey {
    const key = this.#security.keyFor(base, path);
    if (!key)
      throw new PosternError(
        'unavailable',
        `no key for ${path} at ${base}: device.factory-secret or --factory-secret-file gives one for the bootstrap, and the bootstrap one for all else`,
      );
    return key;
  }

  /**
   * Downloads a large body. After a failure it continues with the first missing block, if the body has an ETag by which
   * the server's body is known to be the same (RFC 7959 section 2.4). Otherwise it begins anew.
   * @throws {PosternError} `malformed` for a URI that is not a coap URI; `notFound` for a response other than 2.05 and
   *   5.xx; `tooLarge`; `timeout` and `unavailable` after five failures in a row; `conflict` when the body changes again
   *   and again
   */
  async download(uri: string): Promise<Uint8Array> {
    const { host, port, path, query, scheme } = parseCoapUri(uri);
    const base = coapBase(host, port, scheme);
    let have = Buffer.alloc(0);
    let etag: string | undefined;
    let furthest = 0;
    for (let [failures, versions] = [0, 0]; ; ) {
      const body = new Block2Body(bodyLimits.download, have.length, etag);
      try {
        const { code, payload } = await this.request({
          method: 'GET',
          base,
          path: `/${path.join('/')}`,
          ...(query !== undefined && { query }),
          block2: writeUint((have.length / downloadBlock) * 16 + downloadExponent),
          timeout: downloadTimeout,
          body,
        });
        if (code === '2.05') return Buffer.concat([have, payload]);
        const said = `${uri} answered ${code}: ${Buffer.from(payload).toString()}`;
        throw new PosternError(code.startsWith('5') ? 'unavailable' : 'notFound', said);
      } catch (thrown) {
        const { code } = asPosternError(thrown);
        if (this.#stop.signal.aborted) throw thrown;
        if (code === 'conflict' && ++versions < downloadVersions) {
          have = Buffer.alloc(0);
          etag = undefined;
          continue;
        }
        if (code !== 'timeout' && code !== 'unavailable') throw thrown;
        const all = Buffer.concat([have, body.bytes]);
        etag = body.etag;
        have =
          etag === undefined ? Buffer.alloc(0) : all.subarray(0, all.length - (all.length % downloadBlock));
        if (have.length > furthest) failures = 0;
        furthest = Math.max(furthest, have.length);
        if (++failures >= downloadAttempts) throw thrown;
      }
    }
  }

  /**
   * Asks one gateway for its links (RFC 6690).
   * @param query filter such as `rt=oma.dm`
   * @param timeout milliseconds
   * @throws {PosternError} `timeout`, `unavailable`, `malformed`
   */
  async linksOf(base: string, query: string, timeout: number): Promise<Discovered> {
    const { code, payload, option } = await this.request({
      method: 'GET',
      base,
      path: '/.well-known/core',
      query,
      timeout,
    });
    if (code !== '2.05')
      throw new PosternError('unavailable', `${base} answered discovery with ${inWords(code)}`);
    return discoveredAt(base, parseLinks(Buffer.from(payload).toString()), option(Option.Echo.number));
  }

  /**
   * Asks all CoAP nodes for links by multicast. Resolves with the first response that has any, or with `undefined` when
   * none comes in time.
   * @param query filter such as `rt=oma.dm`
   * @param timeout milliseconds
   */
  async discover(port: number, query: string, timeout: number): Promise<Discovered | undefined> {
    const { promise, resolve } = Promise.withResolvers<Discovered | undefined>();
    const requests = this.#sockets.groups().map(({ agent, host, select }) => {
      const outgoing = agent.request({
        host,
        port,
        multicast: true,
        multicastTimeout: timeout,
        confirmable: false,
        method: 'GET',
        pathname: '/.well-known/core',
        query,
      });
      outgoing.on('error', this.#failed);
      outgoing.on(
        'response',
        guarded(this.#events, 'device-coap', (incoming: IncomingMessage) => {
          const found = linksIn(incoming);
          if (found) resolve(found);
        }),
      );
      try {
        select();
        outgoing.end();
      } catch {
        // The interface has gone in the meantime.
      }
      return outgoing;
    });
    const waited = pause(this.#clock, timeout, this.#stop.signal).then(
      () => undefined,
      () => undefined,
    );
    try {
      return await Promise.race([promise, waited]);
    } finally {
      // Otherwise the package keeps two timers of each, and with them the process, until they end.
      for (const outgoing of requests) {
        clearTimeout(outgoing.multicastTimer);
        outgoing.sender.reset();
      }
    }
  }
}

/**
 * A code of CoAP, and what is behind the one that the package has for a request without a response: a Reset, or an answer over
 * OSCORE that is not protected.
 */
export const inWords = (code: string): string =>
  code === '0.00'
    ? 'no response; over OSCORE, compare the security context of this device, or its factory secret, with that at the gateway'
    : code;
