import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What a server does with a request in place of the usual answer. Returns whether it did something. */
export type Fault = (request: IncomingMessage, response: ServerResponse, part: Buffer) => boolean;

/** A download server with a bundle and the index of its blocks. It can be changed, broken and stopped while it is used. */
export class BundleServer implements AsyncDisposable {
  bundle: Buffer;
  index: Buffer | undefined;
  etag: string | undefined = '"v1"';
  fault: Fault = () => false;
  /** The field Range of each request for the bundle. */
  readonly requests: (string | undefined)[] = [];
  /** Bytes of bodies, of bundle and index. */
  sent = 0;
  readonly #server = createServer((request, response) => this.#answer(request, response));
  #port = 0;

  constructor(bundle: Buffer, index?: Buffer) {
    this.bundle = bundle;
    this.index = index;
  }

  async start(): Promise<this> {
    this.#server.listen(this.#port, '127.0.0.1');
    await once(this.#server, 'listening');
    this.#port = (this.#server.address() as AddressInfo).port;
    return this;
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}/fw.raucb?key=1`;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, search } = new URL(request.url ?? '', 'http://server');
    const isIndex = pathname === '/fw.raucb.blocks';
    const { range } = request.headers;
    if (!isIndex) this.requests.push(range);
    const file = search !== '?key=1' ? undefined : isIndex ? this.index : this.bundle;
    const etag = isIndex ? undefined : this.etag;
    if (!file) {
      response.writeHead(404).end();
      return;
    }
    const wanted = request.headers['if-range'];
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? [];
    const isPart = from !== undefined && (wanted === undefined || wanted === etag);
    const [first, end] = isPart ? [Number(from), to ? Number(to) + 1 : file.length] : [0, file.length];
    const part = file.subarray(first, end);
    if (this.fault(request, response, part)) return;
    this.sent += part.length;
    response.writeHead(isPart ? 206 : 200, {
      ...(etag !== undefined && { etag }),
      'content-length': part.length,
      ...(isPart && { 'content-range': `bytes ${first}-${end - 1}/${file.length}` }),
    });
    response.end(part);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}
