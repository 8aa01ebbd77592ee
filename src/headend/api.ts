import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, Server as TlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { failed, guarded } from '../base/background.ts';
import { type Clock, SystemClock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { type ConnectionBounds, HttpConnections } from '../base/http-connections.ts';
import { jsonLevels, parseJson } from '../base/json.ts';
import { isLoopbackHost } from '../base/loopback.ts';
import { readBounded } from '../base/read-bounded.ts';
import { requestUrl } from '../base/request-url.ts';
import { safeJson } from '../base/safe-text.ts';
import { uriHost } from '../base/uri-host.ts';
import { ApiGuard } from './api-guard.ts';
import type { ApiIdentity } from './api-identity.ts';
import { Later, matchPath, type Route } from './api-route.ts';
import { routes } from './api-routes.ts';
import type { ApiToken } from './api-token.ts';
import type { HeadendConfig } from './config.ts';
import type { Headend } from './headend.ts';
import { openApi } from './openapi.ts';

/** Bytes of a body: an image of one megabyte in base64, and the JSON around it. */
const bodyLimit = 1536 * 1024;
/** Most open connections. An address is known when the token was shown there lately. */
export const apiConnections: ConnectionBounds = { total: 64, strangers: 32, perPrefix: 24, perAddress: 8 };
/**
 * Milliseconds for the headers, for a whole request, and of silence between requests. Node looks at these times each `check`
 * milliseconds.
 */
export const apiLimits = {
  headers: 10_000,
  request: 60_000,
  idle: 10_000,
  check: 1000,
} as const;
const minVersion = 'TLSv1.2';

export interface HeadendApiParts {
  readonly headend: Headend;
  readonly events: Events;
  readonly token: Pick<ApiToken, 'accepts'>;
  readonly settings: Pick<HeadendConfig['api'], 'host' | 'port' | 'hosts' | 'origins'>;
  /** Plain HTTP when absent. */
  readonly tls?: ApiIdentity | undefined;
  /** The system's clock when absent. */
  readonly clock?: Clock;
  /** Replaces single values of `apiLimits`. */
  readonly limits?: { readonly [Name in keyof typeof apiLimits]?: number };
}

/**
 * HTTP server of the head-end's API: the `routes`, and their OpenAPI description at `/openapi.json`. Each request needs the
 * token (`ApiGuard`), and a body must be declared as JSON.
 */
export class HeadendApi implements AsyncDisposable {
  readonly #parts: HeadendApiParts;
  readonly #guard: ApiGuard;
  readonly #server: Server;

  constructor(parts: HeadendApiParts) {
    const { events, token, settings, tls, clock = new SystemClock() } = parts;
    this.#parts = parts;
    this.#guard = new ApiGuard({ ...settings, token, clock, events });
    const serve = guarded(events, 'api', (request: IncomingMessage, response: ServerResponse) =>
      this.serve(request, response),
    );
    const limits = { ...apiLimits, ...parts.limits };
    const options = {
      headersTimeout: limits.headers,
      requestTimeout: limits.request,
      keepAliveTimeout: limits.idle,
      connectionsCheckingInterval: limits.check,
    };
    this.#server = tls
      ? createTlsServer({ ...options, ...tls, minVersion }, serve)
      : createServer(options, serve);
    const connections = new HttpConnections(this.#guard, apiConnections);
    // Before the handshake of TLS.
    this.#server.on(
      'connection',
      guarded(events, 'api', (socket: Socket) => connections.opened(socket)),
    );
  }

  /** Base URL of the API, with the port that is in use. Only after `start`. */
  get url(): string {
    const { address, port } = this.#server.address() as AddressInfo;
    return `${this.#parts.tls ? 'https' : 'http'}://${uriHost(address)}:${port}`;
  }

  /**
   * Listens on the address and port of the settings. Port 0 takes a free one.
   * @throws {PosternError} `configuration` when the address or port cannot be used
   */
  async start({ host, port }: { host: string; port: number } = this.#parts.settings): Promise<void> {
    const { events, tls } = this.#parts;
    try {
      this.#server.listen(port, host);
      await once(this.#server, 'listening');
    } catch (cause) {
      throw new PosternError('configuration', `api.port: ${host}:${port} cannot be used: ${String(cause)}`, {
        cause,
      });
    }
    // Such as no file descriptor for a connection.
    this.#server.on('error', (error) => failed(events, 'api', error));
    if (!tls && !isLoopbackHost(host)) events.emit('api.insecure', { security: 'none: HTTP without TLS' });
  }

  /** Uses another certificate for the connections that follow. Without effect on plain HTTP. */
  renew(tls: ApiIdentity): void {
    if (this.#server instanceof TlsServer) this.#server.setSecureContext({ ...tls, minVersion });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  /** Answers one request. Never rejects. */
  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { origin } = request.headers;
    if (origin !== undefined && this.#guard.allowsOrigin(origin)) {
      response.setHeader('access-control-allow-origin', origin);
      response.setHeader('vary', 'origin');
      if (request.method === 'OPTIONS') return preflight(response);
    }
    try {
      this.#guard.check(request);
      const { status, body } = await this.#answer(request);
      send(response, status, body);
    } catch (thrown) {
      const error = asPosternError(thrown);
      if (error.retryAfter !== undefined) response.setHeader('retry-after', error.retryAfter);
      if (error.code === 'unauthorized') response.setHeader('www-authenticate', 'Bearer');
      // The rest of a body that was refused is not read.
      if (!request.complete) response.setHeader('connection', 'close');
      if (error.code === 'internal')
        this.#parts.events.emit('api.failed', { message: error.message, stack: error.stack });
      send(response, httpStatus(error), { error: error.code, message: error.message });
    }
  }

  async #answer(request: IncomingMessage): Promise<{ status: number; body: unknown }> {
    const { pathname, searchParams } = requestUrl(request.url);
    if (request.method === 'GET' && pathname === '/openapi.json') return { status: 200, body: openApi() };
    const routesOfPath = routes.filter(({ path }) => matchPath(path, pathname));
    const route = routesOfPath.find(({ method }) => method === request.method);
    if (!route) throw noRoute(request.method ?? '', pathname, routesOfPath);
    const body = await route.answer(this.#parts.headend, {
      parameters: matchPath(route.path, pathname) ?? {},
      query: Object.fromEntries(searchParams),
      readBody: () => readJson(request),
    });
    await this.#parts.headend.settled();
    return body instanceof Later ? { status: 202, body: body.body } : { status: route.status, body };
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
  if (code === 'lockedOut') return 429;
  if (code === 'unavailable' || code === 'full' || code === 'storage') return 503;
  return dmStatus >= 400 && dmStatus < 419 ? dmStatus : 500;
}

/**
 * Reads a JSON body. An empty body counts as `{}`. A web page may post `text/plain` to any server without being asked, so no
 * other type is taken for JSON.
 * @throws {PosternError} `unsupportedFormat`, `malformed`, `tooLarge`
 */
async function readJson(request: IncomingMessage): Promise<unknown> {
  const { 'content-type': type, 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  const isEmpty = encoding === undefined && Number(length ?? 0) === 0;
  const [mediaType = ''] = (type ?? '').toLowerCase().split(';');
  if (mediaType.trim() !== 'application/json' && !(isEmpty && type === undefined))
    throw new PosternError('unsupportedFormat', 'the Content-Type must be application/json: curl --json');
  const body = await readBounded(request, bodyLimit, 'a body');
  if (body.length === 0) return {};
  try {
    return parseJson(body);
  } catch (cause) {
    throw new PosternError('malformed', `the body is no JSON of at most ${jsonLevels} levels`, { cause });
  }
}

/** Answers the question of a browser whether a page of another origin may send a request (Fetch, section 3.2). */
function preflight(response: ServerResponse): void {
  response.writeHead(204, {
    'access-control-allow-methods': 'GET, POST, PUT, DELETE',
    'access-control-allow-headers': 'authorization, content-type',
    'access-control-max-age': '600',
  });
  response.end();
}

function send(response: ServerResponse, status: number, body: unknown): void {
  // Names of devices reach the terminal of whoever calls curl.
  const text = `${safeJson(body, 2)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  response.end(text);
}
