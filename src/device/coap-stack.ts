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
  linksIn,
  read,
  type StackRequest,
  type StackResponse,
} from './coap-messages.ts';
import { CoapSockets } from './coap-sockets.ts';

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

/**
 * The CoAP client and server of the device, made from the `coap` package. Both use one socket of each family, so the
 * gateway can send requests to the address where it heard the device. It deliberately shares no message layer with the
 * gateway: whenever the two talk, two independent CoAP implementations are tested against each other.
 */
export class CoapStack implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #sockets: CoapSockets;
  readonly #events: Events;
  readonly #stop = new AbortController();

  /** @param where IP address or name of the interface to use; undefined for all */
  constructor(clock: Clock, where: string | undefined, answering: Answering, events: Events = noEvents) {
    this.#clock = clock;
    this.#events = events;
    this.#sockets = new CoapSockets(where, {
      request: guarded(events, 'device-coap', (request: IncomingMessage, response: OutgoingMessage) =>
        answer(request, response, answering),
      ),
      failed: this.#failed,
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
    const { host, port } = parseCoapUri(base);
    this.#stop.signal.throwIfAborted();
    const { agent } = this.#sockets.towards(host);
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
    const stopped = () => reject(this.#stop.signal.reason);
    this.#stop.signal.addEventListener('abort', stopped, { once: true });
    if (this.#stop.signal.aborted) stopped();
    try {
      return await promise;
    } catch (thrown) {
      if (!this.#stop.signal.aborted) agent.abort(outgoing);
      throw thrown;
    } finally {
      timer.cancel();
      this.#stop.signal.removeEventListener('abort', stopped);
    }
  }

  /**
   * Downloads a large body. After a failure it continues with the first missing block, if the body has an ETag by which
   * the server's body is known to be the same (RFC 7959 section 2.4). Otherwise it begins anew.
   * @throws {PosternError} `malformed` for a URI that is not a coap URI; `notFound` for a response other than 2.05 and
   *   5.xx; `tooLarge`; `timeout` and `unavailable` after five failures in a row; `conflict` when the body changes again
   *   and again
   */
  async download(uri: string): Promise<Uint8Array> {
    const { host, port, path, query } = parseCoapUri(uri);
    const base = coapBase(host, port);
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
    if (code !== '2.05') throw new PosternError('unavailable', `${base} answered discovery with ${code}`);
    const challenge = option(Option.Echo.number);
    return { base, links: parseLinks(Buffer.from(payload).toString()), challenge };
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
