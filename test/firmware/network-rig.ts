import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const scripts = fileURLToPath(new URL('../../firmware-image/rootfs/usr/lib/postern', import.meta.url));
/** Programs of busybox that the scripts use. */
const applets = [
  'awk',
  'cat',
  'cut',
  'grep',
  'head',
  'ip',
  'ls',
  'mkdir',
  'mv',
  'ping',
  'rm',
  'sed',
  'sort',
  'udhcpc',
  'tail',
  'xxd',
];

/** Reason why this machine cannot run the board's network, or false. */
export const skipNetwork =
  spawnSync('unshare', ['-n', 'ip', 'link', 'add', 'lan', 'type', 'veth']).status !== 0
    ? 'needs network namespaces'
    : spawnSync('busybox').status !== 0 && 'needs busybox';

/** A namespace of network and mounts, which ends with its process. */
class Space {
  readonly #holder: ChildProcess;

  private constructor(holder: ChildProcess) {
    this.#holder = holder;
  }

  static async open(): Promise<Space> {
    // /sys shows the interfaces of the namespace in which it was mounted.
    const ready = 'mount -t sysfs sysfs /sys && ip link set lo up && echo ready && exec cat';
    const holder = spawn('unshare', ['-n', '-m', 'sh', '-c', ready], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(holder.stdout!, 'data');
    return new Space(holder);
  }

  get pid(): string {
    return String(this.#holder.pid);
  }

  /** Arguments by which a command runs in it. */
  command(...command: string[]): string[] {
    return ['-n', '-m', '-t', this.pid, ...command];
  }

  run(...command: string[]): string {
    return execFileSync('nsenter', this.command(...command), {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  spawn(...command: string[]): ChildProcess {
    return spawn('nsenter', this.command(...command), { stdio: ['pipe', 'pipe', 'pipe'] });
  }

  close(): void {
    this.#holder.kill();
  }
}

/**
 * The network of a board: its own scripts in its own shell, in a network namespace, and another one for the world around it. Time is
 * moved by hand: the scripts look again when `look` says so.
 */
export class BoardNetwork implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'postern-network-'));
  readonly board: Space;
  readonly world: Space;
  readonly #children: ChildProcess[] = [];
  #said: AsyncIterator<string> | undefined;
  #lines: Interface | undefined;
  #uptime = 100;
  readonly #ticks: number;

  private constructor(board: Space, world: Space) {
    this.board = board;
    this.world = world;
    for (const name of ['bin', 'scripts', 'run', 'root', 'leases']) mkdirSync(join(this.folder, name));
    for (const name of applets) symlinkSync('/bin/busybox', join(this.folder, 'bin', name));
    for (const name of ['network', 'routes', 'lease', 'common', 'cellular']) {
      const script = this.#here(readFileSync(join(scripts, name), 'utf8'));
      writeFileSync(join(this.folder, 'scripts', name), script, { mode: 0o755 });
    }
    // A look waits for the test, and says when it is at its end. The gateway of the test is no process named node.
    const waiting = `sleep() { echo looked; read -r word < ${this.folder}/ticks; }
pidof() { [ ! -e ${this.folder}/no-gateway ]; }
say() { echo "said $*"; }
`;
    writeFileSync(join(this.folder, 'scripts/common'), waiting, { flag: 'a' });
    writeFileSync(join(this.folder, 'scripts/clock'), `#!/bin/sh\necho >> ${this.folder}/clocks\n`, {
      mode: 0o755,
    });
    execFileSync('mkfifo', [join(this.folder, 'ticks')]);
    // With both ends open, a script that has ended blocks nobody.
    this.#ticks = openSync(join(this.folder, 'ticks'), 'r+');
    this.#writeUptime();
  }

  static async open(): Promise<BoardNetwork> {
    return new BoardNetwork(await Space.open(), await Space.open());
  }

  /** A script of the board, on the folder. */
  #here(script: string): string {
    const { folder } = this;
    return script
      .replace('#!/bin/sh', '#!/bin/busybox sh')
      .replaceAll('/usr/lib/postern/', `${folder}/scripts/`)
      .replaceAll('/run/', `${folder}/run/`)
      .replaceAll('/data/root/', `${folder}/root/`)
      .replaceAll('/proc/uptime', `${folder}/uptime`)
      .replace('export PATH=', `export PATH=${folder}/bin:`);
  }

  /** A cable: interface `name` of the board, and an interface of the same name in the world. */
  cable(name: string, ...addresses: string[]): void {
    this.world.run('ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', name, 'netns', this.board.pid);
    for (const address of addresses) this.world.run('ip', 'addr', 'add', address, 'dev', name);
    this.world.run('ip', 'link', 'set', name, 'up');
  }

  /** Pulls a cable out, or puts it in again. */
  plug(name: string, state: 'up' | 'down'): void {
    this.world.run('ip', 'link', 'set', name, state);
  }

  /** A DHCP server in the world that gives one address, and is its router. */
  async dhcp(name: string, address: string, server: string, dns: string): Promise<void> {
    const file = join(this.folder, `${name}.conf`);
    const lines = [
      ...[
        `start ${address}`,
        `end ${address}`,
        `interface ${name}`,
        `lease_file ${this.folder}/leases/${name}`,
      ],
      ...[
        `option subnet 255.255.255.0`,
        `option router ${server}`,
        `option dns ${dns}`,
        `pidfile ${this.folder}/${name}.pid`,
      ],
    ];
    writeFileSync(file, lines.map((line) => `${line}\n`).join(''));
    writeFileSync(join(this.folder, 'leases', name), '');
    const child = this.world.spawn('busybox', 'udhcpd', '-f', file);
    this.#children.push(child);
    await once(child.stderr!, 'data');
  }

  /** Sets the network up by a plan. */
  up(plan?: string): void {
    if (plan !== undefined) writeFileSync(join(this.folder, 'root/network'), plan);
    this.board.run(join(this.folder, 'scripts/network'), 'up');
  }

  /** A program of the board that is not on this machine. */
  program(name: string, script: string): void {
    writeFileSync(join(this.folder, 'bin', name), `#!/bin/busybox sh\n${script}\n`, { mode: 0o755 });
  }

  /** Lets a script that waits go on. */
  tick(): void {
    writeSync(this.#ticks, 'x\n');
  }

  /** Starts the script that keeps the network up. Resolves when it waits for its first look. */
  async watch(): Promise<void> {
    const child = this.board.spawn(join(this.folder, 'scripts/network'), 'watch');
    this.#children.push(child);
    child.stderr!.on('data', (text) => process.env.POSTERN_TEST_LOG && console.error(String(text)));
    this.#lines = createInterface({ input: child.stdout! });
    this.#said = this.#lines[Symbol.asyncIterator]();
    await this.#looked();
  }

  /** Lets so many seconds pass, and the script look. Returns what it said. */
  async look(seconds: number): Promise<string[]> {
    this.#uptime += seconds;
    this.#writeUptime();
    writeSync(this.#ticks, 'x\n');
    return await this.#looked();
  }

  async #looked(): Promise<string[]> {
    const said: string[] = [];
    for (;;) {
      const { value, done } = await this.#said!.next();
      if (done) throw new Error(`the script ended: ${said.join('; ')}`);
      if (value === 'looked') return said;
      said.push(value.replace(/^said /, ''));
    }
  }

  #writeUptime(): void {
    writeFileSync(join(this.folder, 'uptime'), `${this.#uptime}.50 7.00\n`);
  }

  /** The connection of the gateway to its broker at an address of the world, until it is closed. */
  async connect(address: string, user = '100'): Promise<() => void> {
    const server = this.world.spawn('busybox', 'nc', '-l', '-p', '8883');
    const call = () => {
      const nc = ['busybox', 'nc', address, '8883'];
      const made = this.board.spawn('setpriv', '--reuid', user, '--clear-groups', ...nc);
      this.#children.push(made);
      return made;
    };
    this.#children.push(server);
    server.stdin!.write('hello\n');
    // The server may not listen yet: then the client is refused, and another one is made.
    let client = call();
    for (let isOpen = false; !isOpen; ) {
      isOpen = await Promise.race([
        once(client.stdout!, 'data').then(() => true),
        once(client, 'exit').then(() => false),
      ]);
      if (!isOpen) client = call();
    }
    return () => {
      client.kill('SIGKILL');
      server.kill('SIGKILL');
    };
  }

  /** Default routes of the board in the order in which they are taken, each as `via dev metric`. */
  routes(family: '-4' | '-6' = '-4'): string[] {
    const all: { gateway?: string; dev: string; metric?: number }[] = JSON.parse(
      this.board.run('ip', '-j', family, 'route', 'show', 'default'),
    );
    return all
      .toSorted((a, b) => (a.metric ?? 0) - (b.metric ?? 0))
      .map(({ gateway = '', dev, metric = 0 }) => `${gateway} ${dev} ${metric}`);
  }

  /** The gateway and interface that a packet to an address takes, or `none`. */
  wayTo(address: string): string {
    try {
      const [way] = JSON.parse(this.board.run('ip', '-j', 'route', 'get', address));
      return `${way.gateway ?? ''} ${way.dev}`.trim();
    } catch {
      return 'none';
    }
  }

  addresses(name: string): string[] {
    const [found] = JSON.parse(this.board.run('ip', '-j', 'addr', 'show', 'dev', name));
    return found.addr_info.map(
      (one: { local: string; prefixlen: number }) => `${one.local}/${one.prefixlen}`,
    );
  }

  file(name: string): string {
    return readFileSync(join(this.folder, name), 'utf8');
  }

  /** Resolves when something holds. Each change of addresses and routes of the board is looked at. */
  async until(holds: () => boolean, milliseconds = 20_000): Promise<void> {
    const monitor = this.board.spawn('ip', 'monitor', 'address', 'route');
    this.#children.push(monitor);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = () => {
      try {
        if (holds()) resolve();
      } catch (thrown) {
        reject(thrown);
      }
    };
    monitor.stdout!.on('data', look);
    const timer = setTimeout(() => reject(new Error('it does not come')), milliseconds);
    look();
    await promise.finally(() => {
      clearTimeout(timer);
      monitor.stdout!.off('data', look);
      monitor.kill();
    });
  }

  [Symbol.dispose](): void {
    this.#lines?.close();
    closeSync(this.#ticks);
    for (const child of this.#children) child.kill('SIGKILL');
    spawnSync('sh', ['-c', `for f in ${this.folder}/run/udhcpc.*; do kill -9 "$(cat "$f")"; done`], {
      stdio: 'ignore',
    });
    this.board.close();
    this.world.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
