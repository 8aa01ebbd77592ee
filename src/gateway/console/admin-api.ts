import { once } from 'node:events';
import { chmodSync, lstatSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { failed, guarded } from '../../base/background.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { checkPrivateFolder, makePrivateFolder, userFolder } from '../../base/private-folder.ts';
import { readBounded } from '../../base/read-bounded.ts';
import { safeJson } from '../../base/safe-text.ts';

/** Functions that answer GET, by path. The result is sent as JSON. */
export type Views = Readonly<Record<string, () => unknown>>;
/** Functions that answer POST, by path. They get the body, parsed from JSON. The result is sent as JSON. */
export type Actions = Readonly<Record<string, (body: unknown) => unknown>>;

/** Maximum bytes of a POST body. */
const bodyLimit = 16 * 1024;
/** Maximum bytes of an answer; enough for an inventory of 100,000 devices. */
const answerLimit = 64 * 1024 * 1024;

/** Default path of the socket, for the gateway and for `postern status`: in the folder of the user. */
export const defaultSocket = (): string => join(userFolder(), 'admin.sock');

/**
 * The admin API: JSON over HTTP on a Unix socket. Only the user who runs the gateway can open the socket. An error is
 * answered with its DM status as HTTP status and the body `{ error, message }`.
 */
export class AdminApi implements AsyncDisposable {
  readonly #server: Server;
  readonly #socket: string;
  readonly #views: Views;
  readonly #actions: Actions;
  readonly #events: Events;

  constructor(socket: string, events: Events, views: Views, actions: Actions = {}) {
    this.#socket = socket;
    this.#views = views;
    this.#actions = actions;
    this.#events = events;
    this.#server = createServer(
      guarded(events, 'admin-api', (incoming: IncomingMessage, response: ServerResponse) =>
        this.serve(incoming, response),
      ),
    );
  }

  /** Answers one request. */
  async serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    let [status, text]: [number, string] = [200, ''];
    try {
      text = safeJson((await answer(incoming, this.#views, this.#actions)) ?? {});
    } catch (thrown) {
      const { code, message, dmStatus } = asPosternError(thrown);
      if (code === 'internal') failed(this.#events, 'admin-api', thrown);
      status = dmStatus < 600 ? dmStatus : 500;
      text = safeJson({ error: code, message });
    }
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(text);
  }

  /** @throws {PosternError} `configuration` when another gateway serves this socket, or the socket cannot be created */
  async start(): Promise<void> {
    await demandFree(this.#socket);
    // Somebody else who made the folder could put another socket in place of this one.
    makePrivateFolder(dirname(this.#socket), 'gateway.admin-socket');
    // A path that was mistyped costs no file.
    const found = lstatSync(this.#socket, { throwIfNoEntry: false });
    if (found && !found.isSocket())
      throw new PosternError(
        'configuration',
        `gateway.admin-socket: ${this.#socket} is there already, and is no socket`,
      );
    try {
      rmSync(this.#socket, { force: true });
      this.#server.listen(this.#socket);
      await once(this.#server, 'listening');
      chmodSync(this.#socket, 0o600);
      // Such as no file descriptor for a connection.
      this.#server.on('error', (error) => failed(this.#events, 'admin-api', error));
    } catch (cause) {
      throw new PosternError(
        'configuration',
        `gateway.admin-socket: ${this.#socket} cannot be created: ${String(cause)}`,
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

/**
 * Calls the view or action of a request.
 * @throws {PosternError} `notFound`, `malformed`, `tooLarge`, or the error of the action
 */
async function answer(incoming: IncomingMessage, views: Views, actions: Actions): Promise<unknown> {
  const path = incoming.url ?? '';
  if (incoming.method === 'POST') {
    const action = Object.hasOwn(actions, path) ? actions[path] : undefined;
    if (!action) throw new PosternError('notFound', `paths for POST: ${Object.keys(actions).join(', ')}`);
    const text = Buffer.from(await readBounded(incoming, bodyLimit, 'a body')).toString();
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch (cause) {
      throw new PosternError('malformed', 'the body is not JSON', { cause });
    }
    return action(body);
  }
  const view = Object.hasOwn(views, path) ? views[path] : undefined;
  if (!view) throw new PosternError('notFound', `paths for GET: ${Object.keys(views).join(', ')}`);
  return view();
}

/** Milliseconds within which a gateway that is alive answers a question. */
const answerWait = 10_000;

/** What connecting to a socket says when nobody has it: there is none, or its process has ended. */
const free = ['ENOENT', 'ECONNREFUSED'];

/**
 * Checks that no process serves a socket. One that a process left behind when it was killed is free.
 * @throws {PosternError} `configuration` when another gateway serves the socket, or it cannot be reached
 */
export async function demandFree(socket: string): Promise<void> {
  const probe = connect(socket);
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  probe.once('connect', () => resolve(undefined));
  probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  const failure = await promise;
  probe.destroy();
  if (failure !== undefined && free.includes(failure)) return;
  const why = failure === undefined ? 'another gateway serves it' : `it cannot be reached (${failure})`;
  throw new PosternError(
    'configuration',
    `gateway.admin-socket: ${socket}: ${why}; give this gateway a socket of its own`,
  );
}

/**
 * Sends a request to the admin API of a running gateway: GET, or POST when there is a body. Returns the parsed answer.
 * @throws {PosternError} `unavailable` when no gateway runs there, or when it refuses; `configuration` when the folder of the
 * default socket belongs to another user
 */
export async function askGateway(socket: string, path: string, body?: unknown): Promise<unknown> {
  // In the temporary folder somebody else may have made the folder of this user, and answer in place of the gateway.
  if (dirname(socket) === userFolder()) checkPrivateFolder(userFolder(), '--socket');
  const outgoing = request({ socketPath: socket, path, method: body === undefined ? 'GET' : 'POST' });
  // A backup takes as long as the disk needs. Everything else is answered from memory.
  if (body === undefined)
    outgoing.setTimeout(answerWait, () => outgoing.destroy(new Error('no answer came in time')));
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
    (answered as { message?: string }).message ?? `the gateway answered ${status}`,
  );
}
