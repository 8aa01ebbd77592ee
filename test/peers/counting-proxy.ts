import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

/** A TCP proxy that counts what passes, and sees what it passes. */
export class CountingProxy implements AsyncDisposable {
  readonly #server;
  readonly #sockets = new Set<Socket>();
  /** Octets so far: from clients to the server, and back. */
  up = 0;
  down = 0;
  /** Called for each chunk after it was counted. */
  passed: (direction: 'up' | 'down', chunk: Buffer) => void = () => {};

  private constructor(host: string, port: number) {
    this.#server = createServer({ noDelay: true }, (client) => {
      const server = connect({ host, port, noDelay: true });
      this.#join(client, server, 'up');
      this.#join(server, client, 'down');
    });
  }

  /** @param url of the server: its host and port are used */
  static async before(url: string): Promise<CountingProxy> {
    const { hostname, port } = new URL(url);
    const proxy = new CountingProxy(hostname, Number(port));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get octets() {
    return { up: this.up, down: this.down };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #join(from: Socket, to: Socket, direction: 'up' | 'down'): void {
    this.#sockets.add(from);
    from.on('data', (chunk: Buffer) => {
      this[direction] += chunk.length;
      to.write(chunk);
      this.passed(direction, chunk);
    });
    from.on('error', () => to.destroy());
    from.once('close', () => {
      this.#sockets.delete(from);
      to.end();
    });
  }
}
