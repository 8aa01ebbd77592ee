import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));
const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

type Line = Readonly<Record<string, unknown>> & { readonly event: string };

/** A party in a process of its own, as an operator starts it. Tests wait for lines of its log. */
export class ServiceProcess implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly lines: Line[] = [];
  /** What came on standard error so far. */
  errors = '';
  readonly #waiting = new Set<{ fits: (line: Line) => boolean; resolve: (line: Line) => void }>();
  readonly #closed: Promise<unknown>;

  constructor(
    program: string,
    args: readonly string[],
    { env = {}, cwd }: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
  ) {
    this.child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
      ...(cwd !== undefined && { cwd }),
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.errors += text;
    });
    createInterface({ input: this.child.stdout! }).on('line', (text) => {
      if (!text.startsWith('{')) return;
      const line = JSON.parse(text) as Line;
      this.lines.push(line);
      for (const waiter of this.#waiting)
        if (waiter.fits(line)) {
          this.#waiting.delete(waiter);
          waiter.resolve(line);
        }
    });
    this.#closed = once(this.child, 'close');
  }

  /** Starts a command of `postern` from its sources. */
  static postern(args: readonly string[], env: NodeJS.ProcessEnv = {}): ServiceProcess {
    return new ServiceProcess(process.execPath, [main, ...args], { env });
  }

  /** Waits for a line of the log with these fields, from line number `from` on. Rejects when the process ends before. */
  async until(event: string, fields: Readonly<Record<string, unknown>> = {}, from = 0): Promise<Line> {
    const fits = (line: Line) =>
      line.event === event && Object.entries(fields).every(([name, value]) => line[name] === value);
    const found = this.lines.slice(from).find(fits);
    if (found) return found;
    const { promise, resolve } = Promise.withResolvers<Line>();
    this.#waiting.add({ fits, resolve });
    const ended = this.#closed.then(() => {
      throw new Error(
        `ended without ${event}: ${this.errors}\n${this.lines.map(({ event: e }) => e).join(' ')}`,
      );
    });
    return await Promise.race([promise, ended]);
  }

  /** Waits until the process, and each other one that has its standard output, has ended. Returns its exit code. */
  async end(): Promise<number | NodeJS.Signals | null> {
    await this.#closed;
    return this.child.exitCode ?? this.child.signalCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGKILL');
    await this.#closed;
  }
}
