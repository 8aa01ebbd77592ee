import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';

/** Why a test is skipped when a program is not there; false when it is. */
export const without = (program: string): string | false =>
  spawnSync('sh', ['-c', `command -v ${program}`]).status === 0 ? false : `${program} is not installed`;

/** A program that others wrote, and all that it has printed. */
export class Foreign implements AsyncDisposable {
  readonly process: ChildProcessWithoutNullStreams;
  output = '';
  #printed = Promise.withResolvers<void>();

  constructor(program: string, args: readonly string[]) {
    // Some of them hold back what they print until they end.
    this.process = spawn('stdbuf', ['-o0', program, ...args]);
    for (const stream of [this.process.stdout, this.process.stderr])
      stream.on('data', (bytes: Buffer) => {
        this.output += bytes.toString('latin1');
        this.#printed.resolve();
        this.#printed = Promise.withResolvers();
      });
    this.process.on('exit', () => this.#printed.resolve());
  }

  /** Resolves when the program has printed this. Rejects when it ends without. */
  async prints(wanted: RegExp): Promise<void> {
    while (!wanted.test(this.output)) {
      if (this.#isOver) throw new Error(`no ${wanted} in:\n${this.output}`);
      await this.#printed.promise;
    }
  }

  /** Resolves when the program has ended, with all that it printed. */
  async ended(): Promise<string> {
    if (!this.#isOver) await once(this.process, 'close');
    return this.output;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isOver) return;
    const closed = once(this.process, 'close');
    this.process.kill('SIGKILL');
    await closed;
  }

  get #isOver(): boolean {
    return this.process.exitCode !== null || this.process.signalCode !== null;
  }
}

/** A UDP port of the loopback interface that was free a moment ago, as was the port below it: libcoap takes both. */
export async function freePort(): Promise<number> {
  for (;;) {
    await using upper = await bound(0);
    await using lower = await bound(upper.port - 1);
    if (lower.isBound) return upper.port;
  }
}

async function bound(port: number) {
  const socket = createSocket('udp4');
  socket.bind({ port, address: '127.0.0.1', exclusive: true });
  // It rejects with the error of the socket.
  const isBound = await once(socket, 'listening').then(
    () => true,
    () => false,
  );
  return {
    isBound,
    port: isBound ? socket.address().port : port,
    [Symbol.asyncDispose]: async () => {
      socket.close();
      await once(socket, 'close');
    },
  };
}
