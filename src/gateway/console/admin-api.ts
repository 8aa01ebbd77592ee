import { once } from 'node:events';
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, request, type Server } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { readBounded } from '../../base/read-bounded.ts';

/** What the admin API shows, by path. */
export type Views = Readonly<Record<string, () => unknown>>;
/** What it does, by path, with the body of a POST. */
export type Actions = Readonly<Record<string, (body: unknown) => unknown>>;

/** Bytes of a body, and of an answer: an inventory of 100,000 devices. */
const bodyLimit = 16 * 1024;
const answerLimit = 64 * 1024 * 1024;

/** Where `postern status` looks when it is not told: in a folder of the user's own. */
export function defaultSocket(): string {
  const base = process.env.XDG_RUNTIME_DIR ?? tmpdir();
  return join(base, `postern-${process.getuid?.() ?? 0}`, 'admin.sock');
}

/** The admin API: JSON over HTTP on a Unix socket, which only the user who runs the gateway can open. */
export class AdminApi implements AsyncDisposable {
  readonly #server: Server;
  readonly #socket: string;

  constructor(socket: string, views: Views, actions: Actions = {}) {
    this.#socket = socket;
    this.#server = createServer(async (incoming, response) => {
      let [status, body]: [number, unknown] = [200, undefined];
      try {
        body = await answer(incoming, views, actions);
      } catch (thrown) {
        const { code, message, dmStatus } = asPosternError(thrown);
        [status, body] = [dmStatus < 600 ? dmStatus : 500, { error: code, message }];
      }
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body ?? {}));
    });
  }

  /** @throws {PosternError} `configuration` when another gateway serves this socket, or it cannot be made */
  async start(): Promise<void> {
    if (await isServed(this.#socket))
      throw new PosternError(
        'configuration',
        `gateway.admin-socket: another gateway serves ${this.#socket}; give this one its own`,
      );
    try {
      mkdirSync(dirname(this.#socket), { recursive: true, mode: 0o700 });
      rmSync(this.#socket, { force: true });
      this.#server.listen(this.#socket);
      await once(this.#server, 'listening');
      chmodSync(this.#socket, 0o600);
    } catch (cause) {
      throw new PosternError(
        'configuration',
        `gateway.admin-socket: ${this.#socket} cannot be made: ${String(cause)}`,
        { cause },
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

/** @throws {PosternError} `notFound`, `malformed`, or as the action does */
async function answer(incoming: IncomingMessage, views: Views, actions: Actions): Promise<unknown> {
  const path = incoming.url ?? '';
  if (incoming.method === 'POST') {
    const action = Object.hasOwn(actions, path) ? actions[path] : undefined;
    if (!action) throw new PosternError('notFound', `there is ${Object.keys(actions).join(', ')} to POST to`);
    const text = Buffer.from(await readBounded(incoming, bodyLimit, 'a body')).toString();
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch (cause) {
      throw new PosternError('malformed', 'the body is no JSON', { cause });
    }
    return action(body);
  }
  const view = Object.hasOwn(views, path) ? views[path] : undefined;
  if (!view) throw new PosternError('notFound', `there is ${Object.keys(views).join(', ')}`);
  return view();
}

async function isServed(socket: string): Promise<boolean> {
  const probe = connect(socket);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  probe.once('connect', () => resolve(true));
  probe.once('error', () => resolve(false));
  const served = await promise;
  probe.destroy();
  return served;
}

/**
 * Asks a running gateway; with a body, has it do something.
 * @throws {PosternError} `unavailable` when none runs there, or when it refuses
 */
export async function askGateway(socket: string, path: string, body?: unknown): Promise<unknown> {
  const outgoing = request({ socketPath: socket, path, method: body === undefined ? 'GET' : 'POST' });
  outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  let status: number | undefined;
  let answered: unknown;
  try {
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    status = response.statusCode;
    answered = JSON.parse((await readBounded(response, answerLimit, 'an answer')).toString());
  } catch (cause) {
    throw new PosternError(
      'unavailable',
      `no gateway answers at ${socket}; start one (npm start, or postern gateway --config FILE), or name its socket by --socket`,
      { cause },
    );
  }
  if (status === 200) return answered;
  throw new PosternError(
    'unavailable',
    (answered as { message?: string }).message ?? `it answered ${status}`,
  );
}
