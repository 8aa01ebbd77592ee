import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, type WriteStream, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { stripVTControlCharacters } from 'node:util';
import { mebibyte, startOf } from '../recipe/layout.ts';
import { run } from '../recipe/tools.ts';
import type { Hardware } from './hardware.ts';

export interface MachineParts {
  /** Folder for its device tree and its serial log. */
  readonly folder: string;
  readonly disk: string;
  readonly hardware: Hardware;
  /** UDP and TCP ports of this machine, at 127.0.0.1, by the port of the guest that they lead to. */
  readonly udp?: Readonly<Record<number, number>>;
  readonly tcp?: Readonly<Record<number, number>>;
  /** More for the kernel's command line. */
  readonly kernelArguments?: string;
}

interface Waiting {
  readonly pattern: RegExp;
  readonly resolve: (found: RegExpExecArray) => void;
}

const lines = 20_000;

/** A board that QEMU emulates, from its boot loader on, with a disk, and a network of its own behind 127.0.0.1. */
export class Machine implements AsyncDisposable {
  readonly #parts: MachineParts;
  readonly #log: WriteStream;
  readonly #waiting = new Set<Waiting>();
  readonly serial: string[] = [];
  #process: ChildProcess | undefined;
  #command: readonly string[] = [];
  #isCut = false;
  /** When it was switched on. */
  #started = 0;

  constructor(parts: MachineParts) {
    this.#parts = parts;
    this.#log = createWriteStream(join(parts.folder, 'serial.log'), { flags: 'a' });
  }

  get isRunning(): boolean {
    return this.#process !== undefined;
  }

  /** Of QEMU, while it runs. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Milliseconds since it was switched on. */
  get age(): number {
    return performance.now() - this.#started;
  }

  start(): void {
    this.#isCut = false;
    const { folder, disk, hardware, udp = {}, tcp = {}, kernelArguments = '' } = this.#parts;
    const forwards = Object.entries({ udp, tcp }).flatMap(([protocol, ports]) =>
      Object.entries(ports).map(([guest, host]) => `,hostfwd=${protocol}:127.0.0.1:${host}-:${guest}`),
    );
    const all = [
      ...['-nographic', '-no-user-config', '-nodefaults', '-action', 'watchdog=reset'],
      ...['-netdev', `user,id=lan${forwards.join('')}`],
      ...hardware.arguments(`format=raw,cache=writeback,file=${disk}`),
      ...['-monitor', `unix:${join(folder, 'monitor')},server,nowait`],
    ];
    const tree = join(folder, 'trusted.dtb');
    const source = hardware.tree(folder, all).replace(/(rauc\.slot=\S+) /, `$1 ${kernelArguments} `);
    run('dtc', ['-q', '-I', 'dts', '-O', 'dtb', '-p', '4096', '-o', tree, '-'], { input: source });
    this.#command = ['-M', hardware.machine, '-no-reboot', '-dtb', tree, ...all];
    this.#switchOn();
  }

  /**
   * A reset of the guest ends QEMU, and it is started anew: QEMU is very slow at loading a kernel over one that it has
   * translated before.
   */
  #switchOn(): void {
    const child = spawn('qemu-system-aarch64', this.#command, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#started = performance.now();
    this.#process = child;
    child.once('exit', (code) => {
      this.#process = undefined;
      if (code === 0 && !this.#isCut) this.#switchOn();
    });
    child.stderr.on('data', (text) => this.#log.write(text));
    createInterface({ input: child.stdout }).on('line', (line) => this.#take(line));
  }

  /** Types a line on the console; a developer image has a shell there. */
  type(line: string): void {
    this.#process?.stdin?.write(`${line}\n`);
  }

  /** Resolves when the serial line says something like this, from now on. */
  async says(pattern: RegExp, milliseconds: number): Promise<RegExpExecArray> {
    const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>();
    const waiting = { pattern, resolve };
    this.#waiting.add(waiting);
    const timer = setTimeout(
      () =>
        reject(
          new Error(
            `the machine did not say ${pattern} within ${milliseconds} ms; it said last:\n${this.serial.slice(-15).join('\n')}`,
          ),
        ),
      milliseconds,
    );
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(waiting);
    }
  }

  /** As when the power fails: nothing that it holds in memory is written. */
  async cutPower(): Promise<void> {
    const child = this.#process;
    this.#isCut = true;
    if (!child) return;
    child.kill('SIGKILL');
    // When it has ended, and what it said last was read.
    await once(child, 'close');
  }

  /** Bytes that the guest has written to its disk since it was switched on. */
  async bytesWritten(): Promise<number> {
    const monitor = connect(join(this.#parts.folder, 'monitor'));
    monitor.write('info blockstats\n');
    try {
      let said = '';
      for await (const text of monitor) {
        said += String(text);
        const found = /disk[^\n]*wr_bytes=(\d+)/.exec(said);
        if (found) return Number(found[1]);
      }
      throw new Error(`QEMU told nothing of its disk: ${said}`);
    } finally {
      monitor.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cutPower();
    // All of it is in the file, for whoever keeps it.
    await new Promise((resolve) => this.#log.end(resolve));
  }

  #take(line: string): void {
    const text = stripVTControlCharacters(line.replaceAll('\r', ''));
    this.#log.write(`${(this.age / 1000).toFixed(2).padStart(8)}  ${text}\n`);
    this.serial.push(text);
    if (this.serial.length > lines) this.serial.splice(0, lines / 2);
    for (const { pattern, resolve } of [...this.#waiting]) {
      const found = pattern.exec(text);
      if (found) resolve(found);
    }
  }
}

/** Flashes an image to a disk, and puts files onto its config partition, as an operator does before the board is switched on. */
export function flash(image: string, disk: string, files: Readonly<Record<string, string>>): void {
  run('cp', ['--sparse=always', image, disk]);
  // Flash is larger than the image.
  run('truncate', ['-s', '512M', disk]);
  for (const [name, text] of Object.entries(files)) {
    const file = join(dirname(disk), name);
    writeFileSync(file, text);
    run('mcopy', ['-o', '-i', `${disk}@@${startOf('config') * mebibyte}`, file, `::${name}`]);
  }
}
