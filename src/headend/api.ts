import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { failed, guarded } from '../base/background.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { readBounded } from '../base/read-bounded.ts';
import { uriHost } from '../base/uri-host.ts';
import { matchPath, type Route } from './api-route.ts';
import { routes } from './api-routes.ts';
import type { Headend } from './headend.ts';
import { openApi } from './openapi.ts';

/** Bytes of a body: an image of one megabyte in base64, and the JSON around it. */
const bodyLimit = 1536 * 1024;

/** HTTP server of the head-end's API: the `routes`, and their OpenAPI description at `/openapi.json`. */
export class HeadendApi implements AsyncDisposable {
  readonly #headend: Headend;
  readonly #events: Events;
  readonly #server: Server;

  constructor(headend: Headend, events: Events) {
    this.#headend = headend;
    this.#events = events;
    this.#server = createServer(
      guarded(events, 'api', (request: IncomingMessage, response: ServerResponse) =>
        this.#serve(request, response),
      ),
    );
  }

  /** Base URL of the API, with the port that is in use. Only after `start`. */
  get url(): string {
    const { address, port } = this.#server.address() as AddressInfo;
    return `http://${uriHost(address)}:${port}`;
  }

  /**
   * Listens on an address and a port. Port 0 takes a free one.
   * @throws {PosternError} `configuration` when the address or port cannot be used
   */
  async start(host: string, port: number): Promise<void> {
    try {
      this.#server.listen(port, host);
      await once(this.#server, 'listening');
    } catch (cause) {
      throw new PosternError('configuration', `api.port: ${host}:${port} cannot be used: ${String(cause)}`, {
        cause,
      });
    }
    // Such as no file descriptor for a connection.
    this.#server.on('error', (error) => failed(this.#events, 'api', error));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const { status, body } = await this.#answer(request);
      send(response, status, body);
    } catch (thrown) {
      const error = asPosternError(thrown);
      if (error.retryAfter !== undefined) response.setHeader('retry-after', error.retryAfter);
      if (error.code === 'internal')
        this.#events.emit('api.failed', { message: error.message, stack: error.stack });
      send(response, httpStatus(error), { error: error.code, message: error.message });
    }
  }

  async #answer(request: IncomingMessage): Promise<{ status: number; body: unknown }> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
    if (request.method === 'GET' && pathname === '/openapi.json') return { status: 200, body: openApi() };
    const routesOfPath = routes.filter(({ path }) => matchPath(path, pathname));
    const route = routesOfPath.find(({ method }) => method === request.method);
    if (!route) throw noRoute(request.method ?? '', pathname, routesOfPath);
    const body = await route.answer(this.#headend, {
      parameters: matchPath(route.path, pathname) ?? {},
      query: Object.fromEntries(searchParams),
      readBody: () => readJson(request),
    });
    await this.#headend.settled();
    return { status: route.status, body };
  }
}

/** The error for a request without a route: `notAllowed` names the path's methods, `notFound` names all routes. */
function noRoute(method: string, pathname: string, routesOfPath: readonly Route[]): PosternError {
  if (routesOfPath.length > 0)
    return new PosternError(
      'notAllowed',
      `${pathname} takes ${routesOfPath.map((route) => route.method).join(', ')}`,
    );
  const known = routes.map((route) => `${route.method} ${route.path}`).join(', ');
  return new PosternError('notFound', `no ${method} ${pathname}; there are ${known}, GET /openapi.json`);
}

/** The HTTP status of an error. DM statuses from 400 to 418 have the same meaning in HTTP. */
function httpStatus({ dmStatus, code }: PosternError): number {
  if (code === 'unavailable' || code === 'full' || code === 'storage') return 503;
  return dmStatus >= 400 && dmStatus < 419 ? dmStatus : 500;
}

/**
 * Reads a JSON body. An empty body counts as `{}`.
 * @throws {PosternError} `malformed`, `tooLarge`
 */
async function readJson(request: IncomingMessage): Promise<unknown> {
  const body = await readBounded(request, bodyLimit, 'a body');
  if (body.length === 0) return {};
  try {
    return JSON.parse(body.toString());
  } catch (cause) {
    throw new PosternError('malformed', 'the body is no JSON', { cause });
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body, null, 2)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}
