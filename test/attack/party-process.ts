import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

/** A line of the log of a party. */
export type LogLine = Readonly<Record<string, unknown>> & { readonly event?: string };

const bundle = (name: string) => fileURLToPath(new URL(`../../dist/${name}.mjs`, import.meta.url));

/** A gateway or head-end as a process of its own, from its bundle. Its log is counted and read. */
export class PartyProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  /** Bytes that it has logged. */
  logged = 0;
  /** Called for each line of its log. */
  heard: (line: LogLine) => void = () => {};
  readonly #waiting = new Map<string, PromiseWithResolvers<LogLine>>();

  constructor(command: 'gateway' | 'headend', file: string) {
    const program = bundle(command === 'gateway' ? 'postern' : 'postern-headend');
    this.child = spawn(process.execPath, [program, command, '--config', file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const end = () => void this.child.kill('SIGKILL');
    process.once('exit', end);
    this.child.once('exit', (code) => {
      process.off('exit', end);
      for (const { reject } of this.#waiting.values()) reject(new Error(`the ${command} ended with ${code}`));
    });
    createInterface(this.child.stdout!).on('line', (line) => {
      this.logged += Buffer.byteLength(line) + 1;
      const read = JSON.parse(line) as LogLine;
      this.heard(read);
      if (read.event !== undefined) this.#waiting.get(read.event)?.resolve(read);
    });
  }

  /** Whether the process has ended. */
  get died(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Resolves with the next event of this name. Rejects when the process ends before. */
  async next(event: string): Promise<LogLine> {
    const waiter = this.#waiting.get(event) ?? Promise.withResolvers<LogLine>();
    this.#waiting.set(event, waiter);
    return await waiter.promise.finally(() => this.#waiting.delete(event));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.died) return;
    const ended = once(this.child, 'exit');
    this.child.kill();
    await ended;
  }
}
