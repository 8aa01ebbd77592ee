import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { makeBundle } from '../../firmware-image/recipe/bundle.ts';
import { makeDevelopmentKeys, type SigningKeys } from '../../firmware-image/recipe/keys.ts';
import { SystemClock } from '../../src/base/clock.ts';
import { type BootState, BootStateCopies, type SlotName } from '../../src/gateway/update/boot-state.ts';
import { RaucSlots } from '../../src/gateway/update/rauc-slots.ts';

const board = fileURLToPath(new URL('../../firmware-image/rootfs', import.meta.url));
const scripts = join(board, 'usr/lib/postern');
/** Milliseconds that the agent may take for an answer. */
const patience = 20_000;

/** Reason why this machine cannot run the agent of the board, or false. */
export const skipAgent =
  process.getuid?.() !== 0
    ? 'needs root'
    : spawnSync('unshare', ['-m', 'true']).status !== 0
      ? 'needs a mount namespace'
      : ['busybox', 'rauc', 'mksquashfs', 'openssl'].some((name) => spawnSync('which', [name]).status !== 0)
        ? 'needs busybox and rauc'
        : false;

/** Bundles by RAUC's own tool, with keys that are made once. */
export class Bundles implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'postern-bundles-'));
  readonly #keys = new Map<string, SigningKeys>();
  #made = 0;

  /** The keys of an authority. */
  keys(authority: string): SigningKeys {
    const known = this.#keys.get(authority);
    if (known) return known;
    const keys = { folder: join(this.folder, authority), areForDevelopment: true };
    makeDevelopmentKeys(keys.folder);
    this.#keys.set(authority, keys);
    return keys;
  }

  /** Keys of our own authority, with a certificate for another purpose than code. */
  misused(purpose: string): string {
    const keys = this.keys('ours').folder;
    const misused = { folder: join(this.folder, purpose), areForDevelopment: true };
    this.#keys.set(purpose, misused);
    execFileSync('cp', ['-a', keys, misused.folder]);
    writeFileSync(
      join(misused.folder, 'update.ext'),
      `keyUsage=digitalSignature\nextendedKeyUsage=${purpose}\n`,
    );
    const byCa = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'update.ext'];
    const request = ['x509', '-req', '-in', 'update.csr', ...byCa, '-out', 'update.crt', '-days', '30'];
    execFileSync('openssl', request, { cwd: misused.folder, stdio: 'ignore' });
    return purpose;
  }

  /** Makes a bundle. Returns its path. */
  make(version: string, { authority = 'ours', name = qemu.name } = {}): string {
    const image = join(this.folder, 'image');
    writeFileSync(image, Buffer.alloc(4096, version));
    const file = join(this.folder, `${++this.#made}.raucb`);
    makeBundle(join(this.folder, 'work'), file, {
      kind: name,
      version,
      description: 'a test',
      fit: image,
      root: image,
      date: 1_700_000_000,
      keys: this.keys(authority),
    });
    return file;
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true });
  }
}

/**
 * Makes a folder with busybox's programs, which the board's shell finds by itself. What would end or restart something of this
 * machine is not there.
 */
export function applets(folder: string): string {
  mkdirSync(folder, { recursive: true });
  const names = [
    'cat',
    'chown',
    'crc32',
    'dd',
    'grep',
    'head',
    'mkdir',
    'mkfifo',
    'mv',
    'od',
    'printf',
    'rm',
    'sed',
    'seq',
    'tail',
    'tr',
  ];
  for (const name of names) symlinkSync('/bin/busybox', join(folder, name));
  return folder;
}

export interface AgentParts {
  /** The slot that runs. */
  readonly slot?: SlotName;
  readonly version?: string;
  /** Floor of the running image. */
  readonly floor?: string;
  readonly state?: Partial<BootState>;
}

/**
 * The agent of the board: its own scripts, in the shell of the board, on a folder. RAUC checks bundles as on the board. It does
 * not write slots here, but notes what it would have written as it does on the board.
 */
export class Agent implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'postern-agent-'));
  readonly bundle = join(this.folder, 'data/update/bundle.raucb');
  readonly state: BootStateCopies;
  readonly slots: RaucSlots;
  #child: ChildProcess | undefined;
  #asked = 0;

  constructor(keyring: string, { slot = 'A', version = '1.1.0', floor = '', state }: AgentParts = {}) {
    const { folder } = this;
    for (const name of ['bin', 'scripts', 'run/agent', 'dev', 'data/update', 'data/root', 'etc'])
      mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(
      join(folder, 'etc/postern-release'),
      `version=${version}\nboard=${qemu.name}\nfloor=${floor}\n`,
    );
    const trying = state?.trying === slot ? 1 : 0;
    writeFileSync(
      join(folder, 'cmdline'),
      `quiet postern.slot=${slot} postern.trying=${trying} rauc.slot=${slot}\n`,
    );
    const copies = [join(folder, 'dev/state-1'), join(folder, 'dev/state-2')] as const;
    this.state = new BootStateCopies(copies);
    this.state.change({ good: slot, ...state });
    this.#programs(keyring, slot === 'A' ? 'rootfs.1' : 'rootfs.0');
    for (const name of ['common', 'boot-state', 'bundle-checks', 'agent'])
      writeFileSync(join(folder, 'scripts', name), this.#here(readFileSync(join(scripts, name), 'utf8')));
    // What ends or restarts the machine only tells it here. The shell takes a function before a program of busybox.
    const harmless = 'reboot() { :; }\nkillall() { :; }\nsync() { :; }\nrenice() { echo ready >&2; }\n';
    writeFileSync(join(folder, 'scripts/common'), harmless, { flag: 'a' });
    this.slots = new RaucSlots({
      agent: join(folder, 'run/agent'),
      state: copies,
      bundleFile: this.bundle,
      release: join(folder, 'etc/postern-release'),
      kernelArguments: join(folder, 'cmdline'),
      clock: new SystemClock(),
    });
  }

  /** A script of the board, on the folder. */
  #here(script: string): string {
    const { folder } = this;
    return script
      .replaceAll('/usr/lib/postern/', `${folder}/scripts/`)
      .replaceAll('/run/', `${folder}/run/`)
      .replaceAll('/dev/postern/', `${folder}/dev/`)
      .replaceAll('/data/', `${folder}/data/`)
      .replaceAll('/etc/postern-release', `${folder}/etc/postern-release`)
      .replaceAll('/proc/cmdline', `${folder}/cmdline`)
      .replace('export PATH=', `export PATH=${folder}/bin:`);
  }

  /** RAUC: its own check, and in place of an installation what it stores of the slot. `between` runs before an installation. */
  #programs(keyring: string, slot: string): void {
    const { folder } = this;
    // The board's own settings of RAUC.
    const settings = readFileSync(join(board, 'etc/rauc/system.conf'), 'utf8')
      .replace('@board@', qemu.name)
      .replace('path=keyring.pem', `path=${keyring}`);
    writeFileSync(join(folder, 'etc/system.conf'), settings);
    const program = (name: string, text: string) =>
      writeFileSync(join(folder, 'bin', name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    applets(join(folder, 'bin'));
    program('dbus-daemon', 'exit 0');
    program(
      'rauc',
      `info() { /usr/bin/rauc --conf=${folder}/etc/system.conf info "$@"; }
case "$1" in
  info) shift; info "$@" ;;
  install)
    [ -e ${folder}/between ] && . ${folder}/between
    facts=$(info --output-format=shell "$2" 2> /dev/null) || { echo 'signature verification failed'; exit 1; }
    eval "$facts"
    echo ' 50% writing'
    printf '[slot.${slot}]\\nbundle.compatible=%s\\nbundle.version=%s\\n' "$RAUC_MF_COMPATIBLE" "$RAUC_MF_VERSION" > ${folder}/data/root/rauc.status
    ;;
esac`,
    );
  }

  async start(): Promise<this> {
    // The users of the board, for this process alone.
    const users = ['passwd', 'group'].map((file) => `mount --bind ${board}/etc/${file} /etc/${file}`);
    const script = `set -e; ${users.join('; ')}; exec busybox sh ${this.folder}/scripts/agent`;
    const child = spawn('unshare', ['-m', 'sh', '-c', script], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    // `renice` comes when the pipe is open.
    await Promise.race([once(child.stderr, 'data'), once(child, 'exit')]);
    child.stderr.on('data', (text) => process.env.POSTERN_TEST_LOG && console.error(String(text)));
    return this;
  }

  /** Puts a bundle where the gateway puts it. */
  put(file: string): void {
    execFileSync('cp', [file, this.bundle]);
  }

  /** Replaces the bundle by another one after the agent has checked it, before RAUC installs it. */
  swap(file: string): void {
    writeFileSync(join(this.folder, 'between'), `cp ${file} ${this.bundle}\n`);
  }

  /** Writes to the agent's pipe. */
  send(text: string | Uint8Array): void {
    writeFileSync(join(this.folder, 'run/agent/ask'), text, { flag: 'r+' });
  }

  /** Sends a request. Resolves with the agent's answer. */
  async ask(verb: string, argument = ''): Promise<string> {
    const number = `1-${++this.#asked}`;
    const answers = join(this.folder, 'run/agent/answers');
    const file = join(answers, number);
    this.send(`${verb} ${number} ${argument}\n`);
    await this.#until(answers, () => existsSync(file));
    return readFileSync(file, 'utf8').trim();
  }

  async #until(folder: string, holds: () => boolean): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = () => holds() && resolve();
    const watcher = watch(folder, look);
    const timer = setTimeout(() => reject(new Error('the agent does not answer')), patience);
    look();
    await promise.finally(() => {
      clearTimeout(timer);
      watcher.close();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child && this.#child.exitCode === null) {
      const gone = once(this.#child, 'exit');
      this.#child.kill('SIGKILL');
      await gone;
    }
    rmSync(this.folder, { recursive: true });
  }
}
