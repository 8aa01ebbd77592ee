import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as v from 'valibot';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { readBounded } from '../base/read-bounded.ts';
import { uriHost } from '../base/uri-host.ts';
import { type Operation, type OperationOutcome, placeOf } from '../dm/server-session.ts';
import type { Headend } from './headend.ts';

const bodyBytes = 256 * 1024;

const operationsSchema = v.optional(
  v.pipe(
    v.array(
      v.strictObject({
        name: v.picklist(['Get', 'Add', 'Replace', 'Delete', 'Copy', 'Exec']),
        uri: v.pipe(v.string(), v.startsWith('./')),
        format: v.optional(v.string()),
        type: v.optional(v.string()),
        data: v.optional(v.string()),
        from: v.optional(v.pipe(v.string(), v.startsWith('./'))),
        correlator: v.optional(v.string()),
      }),
    ),
    v.minLength(1),
    v.maxLength(64),
  ),
);
const sessionSchema = v.strictObject({ operations: operationsSchema });

/** What a session does when nothing else is asked for: who are you. */
const look: readonly Operation[] = [
  { name: 'Get', uri: './DevInfo' },
  ...['DevId', 'Man', 'Mod'].map((name) => ({ name: 'Get' as const, uri: `./DevInfo/${name}` })),
];

/**
 * The head-end's HTTP API, JSON both ways: GET /gateways, GET /devices, GET /fanouts, POST /devices/{id}/sessions and
 * /gateways/{id}/sessions with `{"operations": [{"name", "uri", "format"?, "type"?, "data"?}]}`.
 */
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
      const body = await this.#route(request);
      send(response, 200, body);
    } catch (thrown) {
      const error = asPosternError(thrown);
      if (error.code === 'internal')
        this.#events.emit('error', 'api.failed', { message: error.message, stack: error.stack });
      // DM statuses of errors are HTTP statuses too, but for the range that HTTP does not have.
      send(
        response,
        error.dmStatus >= 400 && error.dmStatus < 419
          ? error.dmStatus
          : error.code === 'unavailable'
            ? 503
            : 500,
        {
          error: error.code,
          message: error.message,
        },
      );
    }
  }

  async #route(request: IncomingMessage): Promise<unknown> {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const [kind, id, what, ...more] = pathname.slice(1).split('/').map(decodeURIComponent);
    const isList = id === undefined;
    if (request.method === 'GET' && kind === 'healthz' && isList)
      return { connected: this.#headend.connected };
    if (request.method === 'GET' && kind === 'gateways' && isList) return this.#headend.gateways();
    if (request.method === 'GET' && kind === 'fanouts' && isList) return this.#headend.fanouts();
    if (request.method === 'GET' && kind === 'devices' && isList) return this.#headend.devices();
    if (
      request.method === 'POST' &&
      (kind === 'devices' || kind === 'gateways') &&
      id &&
      what === 'sessions' &&
      more.length === 0
    ) {
      const operations = await readOperations(request);
      const outcomes = await this.#headend.manage(id, operations);
      return { id, operations: outcomes.map(shown) };
    }
    throw new PosternError(
      'notFound',
      `no ${request.method} ${pathname}; there are GET /gateways, GET /devices, GET /fanouts, POST /devices/{id}/sessions`,
    );
  }
}

const shown = ({ operation, status, results }: OperationOutcome) => ({
  name: operation.name,
  uri: placeOf(operation),
  status,
  ...(results.length > 0 && {
    results: results.map(({ uri, format, data }) => ({
      uri,
      format,
      data: typeof data === 'string' ? data : Buffer.from(data).toString('base64'),
    })),
  }),
});

async function readOperations(request: IncomingMessage): Promise<readonly Operation[]> {
  const body = await readBounded(request, bodyBytes, 'a body');
  if (body.length === 0) return look;
  let value: unknown;
  try {
    value = JSON.parse(body.toString());
  } catch (cause) {
    throw new PosternError('malformed', 'the body is no JSON', { cause });
  }
  const result = v.safeParse(sessionSchema, value);
  if (!result.success) {
    const [issue] = result.issues;
    const key = issue.path?.map(({ key }) => String(key)).join('.') ?? 'the body';
    throw new PosternError('malformed', `${key}: ${issue.message}`);
  }
  return (result.output.operations ?? look) as readonly Operation[];
}

function send(response: ServerResponse, status: number, body: unknown): void {
  const text = `${JSON.stringify(body, null, 2)}\n`;
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}
