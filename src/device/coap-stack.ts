import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { Agent, createServer, type IncomingMessage, type OutgoingMessage, type Server } from 'coap';
import { type Clock, pause } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { uriHost } from '../base/uri-host.ts';
import { ContentFormat } from '../wire/coap/content-formats.ts';
import { type Link, parseLinks } from '../wire/coap/link-format.ts';
import { Option, writeUint } from '../wire/coap/options.ts';
import { parseCoapUri } from '../wire/coap/uri.ts';

/** Exponent of the blocks that images come in: 1024 bytes. */
const downloadExponent = 6;
const downloadBlock = 1024;
/** Milliseconds for one attempt at an image, and attempts that bring nothing. */
const downloadTimeout = 30_000;
const downloadAttempts = 5;

/** The groups of RFC 7252 section 12.8. */
const allCoapNodes = '224.0.1.187';

export interface StackRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** `coap://host:port`. */
  readonly base: string;
  readonly path: string;
  readonly query?: string;
  readonly contentFormat?: number;
  readonly accept?: number;
  /** Options that the package has no name for, by number. */
  readonly options?: Readonly<Record<number, Uint8Array>>;
  readonly payload?: Uint8Array;
  /** Milliseconds. */
  readonly timeout: number;
  /** Which block to begin with; the package goes on from there. */
  readonly block2?: Uint8Array;
  /** Hears of what came of a body when the rest did not. */
  readonly brokeOff?: (part: Uint8Array) => void;
}

export interface StackResponse {
  /** `2.04` */
  readonly code: string;
  readonly payload: Uint8Array;
  readonly contentFormat: number | undefined;
  /** Its Location-Path, `/rd/x`; empty when it has none. */
  readonly location: string;
  option(number: number): Uint8Array | undefined;
}

/** Where links were found: the gateway's address and its resources. */
export interface Discovered {
  readonly base: string;
  readonly links: readonly Link[];
}

/** What somebody asks of the device. */
export interface StackIncoming {
  readonly method: string;
  /** `/dmn?id=…` */
  readonly url: string;
  readonly payload: Uint8Array;
  readonly contentFormat: number | undefined;
  readonly accept: number | undefined;
}

export interface StackAnswer {
  /** `2.04` */
  readonly code: string;
  readonly payload?: Uint8Array;
  readonly contentFormat?: number;
}

export type Answering = (request: StackIncoming) => StackAnswer | Promise<StackAnswer>;

/** A body beyond this goes up in blocks of 512 bytes (size exponent 5). */
const blockwiseFrom = 1024;
const blockExponent = 5;

/**
 * The device's CoAP: the `coap` package, client and server on one socket, so that the gateway reaches the device where it
 * was heard. None of the gateway's own message layer is in it: in each journey two independent stacks meet.
 */
export class CoapStack implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #address: string;
  readonly #socket: Socket = createSocket('udp4');
  readonly #agent = new Agent({ socket: this.#socket });
  readonly #server: Server;
  readonly #stop = new AbortController();

  constructor(clock: Clock, address: string, answering: Answering) {
    this.#clock = clock;
    this.#address = address;
    this.#server = createServer((request, response) => void answer(request, response, answering));
    this.#agent.on('error', () => {});
    this.#server.on('error', () => {});
  }

  /** @throws {PosternError} `configuration` */
  async open(): Promise<void> {
    try {
      this.#socket.bind(0, this.#address);
      await once(this.#socket, 'listening');
    } catch (cause) {
      throw new PosternError('configuration', `network.interface: ${this.#address} cannot be used`, {
        cause,
      });
    }
    if (this.#address !== '0.0.0.0') this.#socket.setMulticastInterface(this.#address);
    this.#server.listen(this.#socket);
  }

  /** Where this device is heard, as a URI. */
  get address(): string {
    return `coap://${this.#address}:${this.port}`;
  }

  get port(): number {
    return this.#socket.address().port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the device stops'));
    this.#server.close();
    this.#agent.close();
    const closed = once(this.#socket, 'close');
    this.#socket.close();
    await closed;
  }

  /** @throws {PosternError} `timeout`, `unavailable` */
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
    brokeOff,
  }: StackRequest): Promise<StackResponse> {
    const { host, port } = parseCoapUri(base);
    const outgoing = this.#agent.request({
      host,
      port,
      method,
      pathname: path,
      ...(query !== undefined && { query }),
    });
    if (contentFormat !== undefined) outgoing.setOption('Content-Format', writeUint(contentFormat));
    if (accept !== undefined) outgoing.setOption('Accept', writeUint(accept));
    for (const [number, value] of Object.entries(options)) outgoing.setOption(number, Buffer.from(value));
    // By its name: the package puts the later ones under it, and would send both.
    if (block2) outgoing.setOption('Block2', Buffer.from(block2));
    if (payload && payload.length > blockwiseFrom) {
      outgoing.setOption(String(Option.Size1.number), writeUint(payload.length));
      outgoing.setOption('Block1', Buffer.of(blockExponent));
    }
    const { promise, resolve, reject } = Promise.withResolvers<StackResponse>();
    outgoing.on('response', (incoming: IncomingMessage) => resolve(read(incoming)));
    outgoing.on('error', (cause: Error) =>
      reject(new PosternError('unavailable', `CoAP: ${cause.message}`, { cause })),
    );
    outgoing.on('timeout', () => reject(new PosternError('timeout', `no answer from ${base}${path}`)));
    outgoing.end(payload && Buffer.from(payload));
    const timer = this.#clock.after(timeout, () =>
      reject(new PosternError('timeout', `no answer from ${base}${path} in ${timeout} ms`)),
    );
    const stopped = () => reject(this.#stop.signal.reason);
    this.#stop.signal.addEventListener('abort', stopped, { once: true });
    if (this.#stop.signal.aborted) stopped();
    try {
      return await promise;
    } catch (thrown) {
      brokeOff?.(outgoing._totalPayload);
      if (!this.#stop.signal.aborted) this.#agent.abort(outgoing);
      throw thrown;
    } finally {
      timer.cancel();
      this.#stop.signal.removeEventListener('abort', stopped);
    }
  }

  /**
   * Gets a large body whose URI names its version, and goes on where it broke off (RFC 7959 section 2.4).
   * @throws {PosternError} `timeout`, `unavailable`
   */
  async download(uri: string): Promise<Uint8Array> {
    const { host, port, path, query } = parseCoapUri(uri);
    const base = `coap://${uriHost(host)}:${port}`;
    const parts: Uint8Array[] = [];
    for (let failures = 0; ; ) {
      const have = parts.reduce((sum, part) => sum + part.length, 0);
      const block = writeUint((have / downloadBlock) * 16 + downloadExponent);
      try {
        const { code, payload } = await this.request({
          method: 'GET',
          base,
          path: `/${path.join('/')}`,
          ...(query !== undefined && { query }),
          block2: block,
          timeout: downloadTimeout,
          brokeOff: (part) => {
            const whole = part.length - (part.length % downloadBlock);
            if (whole > 0) {
              parts.push(part.subarray(0, whole));
              failures = 0;
            }
          },
        });
        if (code !== '2.05')
          throw new PosternError('notFound', `${uri} answered ${code}: ${Buffer.from(payload).toString()}`);
        return Buffer.concat([...parts, payload]);
      } catch (thrown) {
        const { code } = asPosternError(thrown);
        if (this.#stop.signal.aborted || (code !== 'timeout' && code !== 'unavailable')) throw thrown;
        if (++failures >= downloadAttempts) throw thrown;
      }
    }
  }

  /**
   * Links of a gateway that is asked directly.
   * @throws {PosternError} `timeout`, `unavailable`
   */
  async linksOf(base: string, query: string, timeout: number): Promise<Discovered> {
    const { code, payload } = await this.request({
      method: 'GET',
      base,
      path: '/.well-known/core',
      query,
      timeout,
    });
    if (code !== '2.05') throw new PosternError('unavailable', `${base} answered discovery with ${code}`);
    return { base, links: parseLinks(Buffer.from(payload).toString()) };
  }

  /** Asks all CoAP nodes, and resolves with the first answer that has links; none when nobody answers in time. */
  async discover(port: number, query: string, timeout: number): Promise<Discovered | undefined> {
    const outgoing = this.#agent.request({
      host: allCoapNodes,
      port,
      multicast: true,
      multicastTimeout: timeout,
      confirmable: false,
      method: 'GET',
      pathname: '/.well-known/core',
      query,
    });
    const { promise, resolve } = Promise.withResolvers<Discovered | undefined>();
    outgoing.on('error', () => {});
    outgoing.on('response', (incoming: IncomingMessage) => {
      const { payload, contentFormat, code } = read(incoming);
      if (code !== '2.05' || contentFormat !== ContentFormat.LinkFormat) return;
      try {
        const links = parseLinks(Buffer.from(payload).toString());
        const { address, port: from } = incoming.rsinfo;
        if (links.length > 0) resolve({ base: `coap://${address}:${from}`, links });
      } catch {
        // Whoever answers nonsense is no gateway.
      }
    });
    outgoing.end();
    const waited = pause(this.#clock, timeout, this.#stop.signal).then(
      () => undefined,
      () => undefined,
    );
    try {
      return await Promise.race([promise, waited]);
    } finally {
      // The package would keep both timers, and the process with them, to their end.
      clearTimeout(outgoing.multicastTimer);
      outgoing.sender.reset();
    }
  }
}

async function answer(
  request: IncomingMessage,
  response: OutgoingMessage,
  answering: Answering,
): Promise<void> {
  try {
    const { method, url, payload } = request;
    const given = await answering({
      method,
      url,
      payload,
      contentFormat: formatIn(request, 'Content-Format'),
      accept: formatIn(request, 'Accept'),
    });
    response.code = given.code;
    if (given.contentFormat !== undefined)
      response.setOption('Content-Format', writeUint(given.contentFormat));
    response.end(given.payload && Buffer.from(given.payload));
  } catch (thrown) {
    response.code = asPosternError(thrown).coapCode;
    response.end();
  }
}

/** Formats that the package tells by name, by their numbers; the others it tells by number. */
const formatNames: Readonly<Record<string, number>> = {
  'text/plain': ContentFormat.TextPlain,
  'application/link-format': ContentFormat.LinkFormat,
  'application/octet-stream': ContentFormat.OctetStream,
  'application/senml+json': ContentFormat.SenmlJson,
  'application/senml+cbor': ContentFormat.SenmlCbor,
  'application/vnd.oma.lwm2m+tlv': ContentFormat.LwM2mTlv,
  'application/vnd.oma.lwm2m+json': ContentFormat.LwM2mJson,
};

function formatIn({ headers }: IncomingMessage, name: 'Accept' | 'Content-Format'): number | undefined {
  const format = headers[name];
  return typeof format === 'number' ? format : formatNames[String(format)];
}

function read(incoming: IncomingMessage): StackResponse {
  const option = (number: number): Uint8Array | undefined => {
    const found = incoming._packet.options?.find(({ name }) => String(name) === String(number));
    return found?.value instanceof Buffer ? found.value : undefined;
  };
  const location = (incoming._packet.options ?? []).filter(({ name }) => name === 'Location-Path');
  return {
    code: incoming.code,
    location: location.map(({ value }) => `/${value}`).join(''),
    payload: incoming.payload,
    contentFormat: formatIn(incoming, 'Content-Format'),
    option,
  };
}
