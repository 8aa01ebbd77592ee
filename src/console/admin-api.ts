import { once } from 'node:events';
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { PosternError } from '../base/errors.ts';

/** What the admin API shows, by path. */
export type Views = Readonly<Record<string, () => unknown>>;

/** Where `postern status` looks when it is not told: in a folder of the user's own. */
export function defaultSocket(): string {
  const base = process.env.XDG_RUNTIME_DIR ?? tmpdir();
  return join(base, `postern-${process.getuid?.() ?? 0}`, 'admin.sock');
}

/** The admin API: JSON over HTTP on a Unix socket, which only the user who runs the gateway can open. */
export class AdminApi implements AsyncDisposable {
  readonly #server: Server;
  readonly #socket: string;

  constructor(socket: string, views: Views) {
    this.#socket = socket;
    this.#server = createServer((incoming, response) => {
      const view = views[incoming.url ?? ''];
      const body = view
        ? view()
        : { error: 'notFound', message: `there is ${Object.keys(views).join(', ')}` };
      response.writeHead(view ? 200 : 404, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
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
 * Asks a running gateway.
 * @throws {PosternError} `unavailable` when none runs there
 */
export async function askGateway(socket: string, path: string): Promise<unknown> {
  const outgoing = request({ socketPath: socket, path });
  outgoing.end();
  try {
    const [response] = await once(outgoing, 'response');
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch (cause) {
    throw new PosternError(
      'unavailable',
      `no gateway answers at ${socket}; start one (npm start, or postern gateway --config FILE), or name its socket by --socket`,
      { cause },
    );
  }
}
