import { once } from 'node:events';
import { chmodSync, lstatSync, renameSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import { dirname } from 'node:path';
import { background, failed, guarded } from '../../base/background.ts';
import { type Clock, SystemClock, type Timer } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { parseJson } from '../../base/json.ts';
import { checkPrivateFolder, makePrivateFolder, userFolder } from '../../base/private-folder.ts';
import { readBounded } from '../../base/read-bounded.ts';
import { safeJson } from '../../base/safe-text.ts';
import { demandFree, type FileIdentity, identityOf, leadsTo, removeOwn } from './admin-socket.ts';

/** Functions that answer GET, by path. The result is sent as JSON. */
export type Views = Readonly<Record<string, () => unknown>>;
/** Functions that answer POST, by path. They get the body, parsed from JSON. The result is sent as JSON. */
export type Actions = Readonly<Record<string, (body: unknown) => unknown>>;

/** Maximum bytes of a POST body. */
const bodyLimit = 16 * 1024;
/** Maximum bytes of an answer; enough for an inventory of 100,000 devices. */
const answerLimit = 64 * 1024 * 1024;

/** Milliseconds between two looks whether the socket is still that of this gateway. */
const lookEvery = 30_000;

/**
 * The admin API: JSON over HTTP on a Unix socket. Only the user who runs the gateway can open the socket. An error is
 * answered with its DM status as HTTP status and the body `{ error, message }`. A socket that is removed is made again.
 */
export class AdminApi implements AsyncDisposable {
  readonly #socket: string;
  readonly #views: Views;
  readonly #actions: Actions;
  readonly #events: Events;
  readonly #clock: Clock;
  #server: Server | undefined;
  /** The socket that this gateway made. */
  #made: FileIdentity | undefined;
  #look: Timer | undefined;
  /** Whether the loss of the socket was told. */
  #isLost = false;
  #isStopped = false;

  /** @param clock the system's clock when absent */
  constructor(socket: string, events: Events, views: Views, actions: Actions = {}, clock?: Clock) {
    this.#socket = socket;
    this.#views = views;
    this.#actions = actions;
    this.#events = events;
    this.#clock = clock ?? new SystemClock((thrown) => failed(events, 'timer', thrown));
  }

  /** Answers one request. */
  async serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    let [status, text]: [number, string] = [200, ''];
    try {
      text = safeJson((await answer(incoming, this.#views, this.#actions)) ?? {});
    } catch (thrown) {
      const { code, message, dmStatus } = asPosternError(thrown);
      if (code === 'internal') failed(this.#events, 'admin-api', thrown);
      status = code === 'storage' ? 503 : dmStatus < 600 ? dmStatus : 500;
      text = safeJson({ error: code, message });
    }
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(text);
  }

  /** @throws {PosternError} `configuration` when another gateway serves this socket, or the socket cannot be created */
  async start(): Promise<void> {
    await this.#make();
    this.#lookLater();
  }

  /** @throws {PosternError} `configuration` */
  async #make(): Promise<void> {
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
    // A server of Node removes the path that it listened at when it is closed, whatever is there by then. So it listens at
    // another path, and the socket is renamed.
    const fresh = `${this.#socket}.new`;
    const server = createServer(
      guarded(this.#events, 'admin-api', (incoming: IncomingMessage, response: ServerResponse) =>
        this.serve(incoming, response),
      ),
    );
    try {
      rmSync(fresh, { force: true });
      server.listen(fresh);
      await once(server, 'listening');
      chmodSync(fresh, 0o600);
      this.#made = identityOf(fresh);
      renameSync(fresh, this.#socket);
      // Such as no file descriptor for a connection.
      server.on('error', (error) => failed(this.#events, 'admin-api', error));
      this.#server = server;
    } catch (cause) {
      server.close();
      throw new PosternError(
        'configuration',
        `gateway.admin-socket: ${this.#socket} cannot be created: ${String(cause)}`,
        { cause },
      );
    }
  }

  #lookLater(): void {
    if (this.#isStopped) return;
    this.#look = this.#clock.after(
      lookEvery,
      () => void background(this.#events, 'admin-api', () => this.#mend()).then(() => this.#lookLater()),
    );
  }

  /** Makes the socket again when it is not there any more. Each loss is told once. */
  async #mend(): Promise<void> {
    const socket = this.#socket;
    if (leadsTo(socket, this.#made)) return;
    const isThere = identityOf(socket) !== undefined;
    if (!this.#isLost) {
      const reason = isThere ? 'something else is in its place' : 'it was removed';
      this.#events.emit('gateway.socket-lost', { socket, reason });
    }
    this.#isLost = true;
    const before = this.#server;
    try {
      await this.#make();
    } catch (thrown) {
      // It may be served by another process, or the folder cannot be made. It was told, and is tried again.
      if (asPosternError(thrown).code === 'configuration') return;
      throw thrown;
    }
    // A request that came over the socket before goes on to its end.
    before?.close();
    before?.closeIdleConnections();
    if (this.#isStopped) return await this.#end();
    this.#isLost = false;
    this.#events.emit('gateway.socket-made', { socket });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isStopped = true;
    this.#look?.cancel();
    await this.#end();
  }

  async #end(): Promise<void> {
    removeOwn(this.#socket, this.#made);
    await closed(this.#server);
  }
}

/** Closes a server with all its connections. */
async function closed(server: Server | undefined): Promise<void> {
  if (!server?.listening) return;
  const end = once(server, 'close');
  server.close();
  server.closeAllConnections();
  await end;
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
    const octets = await readBounded(incoming, bodyLimit, 'a body');
    let body: unknown;
    try {
      body = parseJson(octets);
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

/**
 * Sends a request to the admin API of a running gateway: GET, or POST when there is a body. Returns the parsed answer.
 * @throws {PosternError} `unavailable` when no gateway runs there, or when it refuses; `configuration` when the folder of the
 * default socket belongs to another user
 */
export async function askGateway(socket: string, path: string, body?: unknown): Promise<unknown> {
  // In the temporary folder somebody else may have made the folder of this user, and answer in place of the gateway.
  if (dirname(socket) === userFolder()) checkPrivateFolder(userFolder(), '--socket');
  const outgoing = request({
    ...{ socketPath: socket, path, method: body === undefined ? 'GET' : 'POST' },
    // A connection that was kept may lead to a gateway that is not there any more.
    agent: false,
  });
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
    if ((cause as NodeJS.ErrnoException).code === 'EACCES')
      throw new PosternError(
        'unavailable',
        `${socket} is closed to this user; ask as the user of the gateway, or as root`,
        { cause },
      );
    throw new PosternError(
      'unavailable',
      `no gateway answers at ${socket}; start one (npm start, or postern gateway --config FILE), or name its socket by --socket; a gateway of systemd is asked by root`,
      { cause },
    );
  }
  if (status === 200) return answered;
  throw new PosternError(
    'unavailable',
    (answered as { message?: string }).message ?? `the gateway answered ${status}`,
  );
}
