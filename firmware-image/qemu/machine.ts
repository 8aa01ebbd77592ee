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

/** What a `Machine` is made of. */
export interface MachineParts {
  /** Folder for its device tree, its serial log and QEMU's monitor. */
  readonly folder: string;
  /** File with the disk. */
  readonly disk: string;
  readonly hardware: Hardware;
  /** Forwarded UDP ports: port at 127.0.0.1, by port of the guest. */
  readonly udp?: Readonly<Record<number, number>>;
  /** Forwarded TCP ports, likewise. */
  readonly tcp?: Readonly<Record<number, number>>;
  /** Further arguments for the kernel's command line. */
  readonly kernelArguments?: string;
}

interface Waiting {
  readonly pattern: RegExp;
  readonly resolve: (found: RegExpExecArray) => void;
}

/** Most serial lines that are kept. Beyond it the older half is dropped. */
const lines = 20_000;

/**
 * A board that QEMU emulates, from its boot loader on. It has a disk and a network of its own, of which some ports are
 * forwarded from 127.0.0.1.
 */
export class Machine implements AsyncDisposable {
  readonly #parts: MachineParts;
  readonly #log: WriteStream;
  readonly #waiting = new Set<Waiting>();
  /** The last lines of the serial console. */
  readonly serial: string[] = [];
  #process: ChildProcess | undefined;
  #command: readonly string[] = [];
  #isCut = false;
  /** When QEMU was started last, in milliseconds of `performance.now()`. */
  #started = 0;

  constructor(parts: MachineParts) {
    this.#parts = parts;
    this.#log = createWriteStream(join(parts.folder, 'serial.log'), { flags: 'a' });
  }

  get isRunning(): boolean {
    return this.#process !== undefined;
  }

  /** Process ID of QEMU, while it runs. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Milliseconds since the board was switched on or reset last. */
  get age(): number {
    return performance.now() - this.#started;
  }

  /** Switches the board on. */
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
    const source = hardware
      .tree(folder, all)
      .replaceAll(/(rauc\.slot=\S+|postern\.recovery=1) /g, `$1 ${kernelArguments} `);
    run('dtc', ['-q', '-I', 'dts', '-O', 'dtb', '-p', '4096', '-o', tree, '-'], { input: source });
    this.#command = ['-M', hardware.machine, '-no-reboot', '-dtb', tree, ...all];
    this.#switchOn();
  }

  /**
   * Starts QEMU. Each reset of the guest ends QEMU (`-no-reboot`), and it is started again. QEMU could reset the guest
   * itself, but it is very slow when a kernel is loaded over code that it has translated.
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

  /** Types a line on the console, where a developer image has a shell. */
  type(line: string): void {
    this.#process?.stdin?.write(`${line}\n`);
  }

  /**
   * Resolves when a line of the serial console matches, from now on.
   * @throws {Error} with the last 15 lines, when none matches in time
   */
  async says(pattern: RegExp, milliseconds: number): Promise<RegExpExecArray> {
    const { promise, resolve, reject } = Promise.withResolvers<RegExpExecArray>();
    const waiting = { pattern, resolve };
    this.#waiting.add(waiting);
    const timer = setTimeout(
      () =>
        reject(
          new Error(
            `no serial line matched ${pattern} within ${milliseconds} ms; the last lines were:\n${this.serial.slice(-15).join('\n')}`,
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

  /** Cuts the power: QEMU is killed, so nothing in the guest's memory reaches the disk. */
  async cutPower(): Promise<void> {
    const child = this.#process;
    this.#isCut = true;
    if (!child) return;
    child.kill('SIGKILL');
    // The event `close` comes when the process has ended and its output was read.
    await once(child, 'close');
  }

  /** Bytes that the guest has written to its disk since the board was switched on or reset last. */
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
      throw new Error(`QEMU's monitor gave no statistics of the disk: ${said}`);
    } finally {
      monitor.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cutPower();
    // The log must be complete in its file, since a test may keep it.
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

/**
 * Flashes an image to a disk file and puts files onto its partition CONFIG, as an operator does before the board is
 * switched on.
 * @param files contents by name
 */
export function flash(image: string, disk: string, files: Readonly<Record<string, string>>): void {
  run('cp', ['--sparse=always', image, disk]);
  // The disk of a board is larger than the image.
  run('truncate', ['-s', '512M', disk]);
  for (const [name, text] of Object.entries(files)) {
    const file = join(dirname(disk), name);
    writeFileSync(file, text);
    run('mcopy', ['-o', '-i', `${disk}@@${startOf('config') * mebibyte}`, file, `::${name}`]);
  }
}
