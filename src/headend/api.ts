import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as v from 'valibot';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { readBounded } from '../base/read-bounded.ts';
import { uriHost } from '../base/uri-host.ts';
import { type Route, routes } from './api-routes.ts';
import type { Headend } from './headend.ts';
import { openApi } from './openapi.ts';

/** An image of a megabyte in base64, and what is around it. */
const bodyBytes = 1536 * 1024;

/** Serves the head-end's HTTP API: `routes`, and their description at `/openapi.json`. */
export class HeadendApi implements AsyncDisposable {
  readonly #headend: Headend;
  readonly #events: Events;
  readonly #server: Server;

  constructor(headend: Headend, events: Events) {
    this.#headend = headend;
    this.#events = events;
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  get url(): string {
    const { address, port } = this.#server.address() as AddressInfo;
    return `http://${uriHost(address)}:${port}`;
  }

  /** @throws {PosternError} `configuration` when the port is taken */
  async start(host: string, port: number): Promise<void> {
    try {
      this.#server.listen(port, host);
      await once(this.#server, 'listening');
    } catch (cause) {
      throw new PosternError('configuration', `api.port: ${host}:${port} cannot be used: ${String(cause)}`, {
        cause,
      });
    }
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
      if (error.code === 'internal')
        this.#events.emit('api.failed', { message: error.message, stack: error.stack });
      send(response, httpStatus(error), { error: error.code, message: error.message });
    }
  }

  async #answer(request: IncomingMessage): Promise<{ status: number; body: unknown }> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost');
    if (request.method === 'GET' && pathname === '/openapi.json') return { status: 200, body: openApi() };
    const at = routes.filter(({ path }) => parametersOf(path, pathname));
    const route = at.find(({ method }) => method === request.method);
    if (!route) throw noRoute(request.method ?? '', pathname, at);
    const { run, status, query, body } = route;
    const call = {
      parameters: parametersOf(route.path, pathname) ?? [],
      query: query && checked(query, Object.fromEntries(searchParams)),
      body: body && checked(body, await readJson(request)),
    };
    return { status, body: await run(this.#headend, call) };
  }
}

/** Values for the names in braces; none when the path is another. */
function parametersOf(path: string, pathname: string): string[] | undefined {
  const wanted = path.split('/');
  const given = pathname.split('/');
  if (wanted.length !== given.length) return undefined;
  const values: string[] = [];
  for (const [at, part] of wanted.entries()) {
    const found = given[at] ?? '';
    if (part.startsWith('{')) values.push(decoded(found));
    else if (part !== found) return undefined;
  }
  return values;
}

/** @throws {PosternError} `malformed` */
function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (cause) {
    throw new PosternError('malformed', `no percent-encoding: ${part}`, { cause });
  }
}

function noRoute(method: string, pathname: string, at: readonly Route[]): PosternError {
  if (at.length > 0)
    return new PosternError('notAllowed', `${pathname} takes ${at.map((route) => route.method).join(', ')}`);
  const known = routes.map((route) => `${route.method} ${route.path}`).join(', ');
  return new PosternError('notFound', `no ${method} ${pathname}; there are ${known}, GET /openapi.json`);
}

/** DM statuses of errors are HTTP statuses too, but for the range that HTTP does not have. */
function httpStatus({ dmStatus, code }: PosternError): number {
  if (code === 'unavailable' || code === 'full') return 503;
  return dmStatus >= 400 && dmStatus < 419 ? dmStatus : 500;
}

/** @throws {PosternError} `malformed` */
function checked(schema: v.GenericSchema, value: unknown): unknown {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const key = issue.path?.map(({ key: part }) => String(part)).join('.') ?? 'the body';
  throw new PosternError('malformed', `${key}: ${issue.message}`);
}

/** @throws {PosternError} `malformed`, `tooLarge` */
async function readJson(request: IncomingMessage): Promise<unknown> {
  const body = await readBounded(request, bodyBytes, 'a body');
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
