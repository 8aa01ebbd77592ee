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

export interface SignerFacts {
  /** Extended key usage. */
  readonly purpose?: string;
  /** Days from now at which it begins and ends. */
  readonly from?: number;
  readonly until?: number;
  /** Its authority. */
  readonly by?: string;
}

export interface BundleFacts {
  /** Name of the authority or signer. */
  readonly authority?: string;
  /** Name of the board. */
  readonly name?: string;
  /** Seconds since 1970 by the clock of the signer. */
  readonly time?: number;
  /** The field `build` of the manifest. */
  readonly build?: string;
}

const day = 24 * 3600 * 1000;
const dateOf = (days: number): string =>
  `${new Date(Date.now() + days * day).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;

function openssl(folder: string, ...args: string[]): string {
  return execFileSync('openssl', args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Files of `openssl ca` in a folder of keys. */
function prepareAuthority(folder: string): void {
  mkdirSync(join(folder, 'new'), { recursive: true });
  for (const file of ['index.txt', 'index.txt.attr']) writeFileSync(join(folder, file), '');
  writeFileSync(
    join(folder, 'ca.cnf'),
    '[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\nnew_certs_dir=new\ncrlnumber=number\ndefault_md=sha256\npolicy=any\nunique_subject=no\nrand_serial=yes\n[any]\ncommonName=supplied\n',
  );
}

/**
 * Makes a key and its certificate by an authority.
 * @param folder has the authority, and gets both under the name `file`
 * @param ca name of the authority's files
 */
export function certify(
  folder: string,
  file: string,
  { name, purpose, from, until }: Required<Omit<SignerFacts, 'by'>> & { readonly name: string },
  ca = 'ca',
): void {
  prepareAuthority(folder);
  const key = ['-newkey', 'rsa:2048', '-nodes', '-keyout', `${file}.key`, '-subj', `/CN=${name}`];
  openssl(folder, 'req', ...key, '-out', `${file}.csr`);
  writeFileSync(join(folder, 'ext'), `keyUsage=digitalSignature\nextendedKeyUsage=${purpose}\n`);
  const dates = ['-startdate', dateOf(from), '-enddate', dateOf(until)];
  const by = ['-cert', `${ca}.crt`, '-keyfile', `${ca}.key`];
  const made = ['-extfile', 'ext', '-in', `${file}.csr`, '-out', `${file}.crt`];
  openssl(folder, 'ca', '-config', 'ca.cnf', '-batch', '-notext', ...by, ...dates, ...made);
}

/**
 * A revocation list.
 * @param certificates files of the revoked ones
 * @param until days from now at which it ends
 * @param isNarrow whether it is only about a part of the certificates (RFC 5280 section 5.2.5)
 */
export function revocationList(
  folder: string,
  number: number,
  certificates: readonly string[],
  { ca = 'ca', until = 3650, isNarrow = false } = {},
): string {
  prepareAuthority(folder);
  if (isNarrow) {
    const config = readFileSync(join(folder, 'ca.cnf'), 'utf8');
    const narrow = '[narrow]\nissuingDistributionPoint=critical,@point\n[point]\nonlyuser=TRUE\n';
    writeFileSync(
      join(folder, 'ca.cnf'),
      `${config.replace('crlnumber=', 'crl_extensions=narrow\ncrlnumber=')}${narrow}`,
    );
  }
  writeFileSync(join(folder, 'number'), number.toString(16).padStart(4, '0'));
  const by = ['-config', 'ca.cnf', '-cert', `${ca}.crt`, '-keyfile', `${ca}.key`];
  for (const file of certificates) openssl(folder, 'ca', ...by, '-revoke', file);
  openssl(folder, 'ca', ...by, '-gencrl', '-crl_nextupdate', dateOf(until), '-out', 'list.pem');
  return readFileSync(join(folder, 'list.pem'), 'utf8');
}

let shim: string | undefined;
/** A library for programs that are to have the clock of the environment variable TEST_TIME. */
export function clockShim(): string {
  if (shim !== undefined) return shim;
  const folder = mkdtempSync(join(tmpdir(), 'postern-shim-'));
  process.once('exit', () => rmSync(folder, { recursive: true }));
  const source =
    '#include <stdlib.h>\n#include <time.h>\ntime_t time(time_t *t) { time_t now = atol(getenv("TEST_TIME")); if (t) *t = now; return now; }\n';
  writeFileSync(join(folder, 'shim.c'), source);
  execFileSync('cc', ['-shared', '-fPIC', '-o', 'shim.so', 'shim.c'], { cwd: folder });
  shim = join(folder, 'shim.so');
  return shim;
}

/** Runs work whose programs have another clock: seconds since 1970. */
function atTime<T>(time: number | undefined, work: () => T): T {
  if (time === undefined) return work();
  Object.assign(process.env, { LD_PRELOAD: clockShim(), TEST_TIME: String(Math.floor(time)) });
  try {
    return work();
  } finally {
    for (const variable of ['LD_PRELOAD', 'TEST_TIME']) delete process.env[variable];
  }
}

/** Reason why no program can have another clock here, or false. */
export const skipClocks = spawnSync('which', ['cc']).status === 0 ? false : 'needs a C compiler';

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
    // Its certificates begin before those of its signers.
    atTime(skipClocks ? undefined : Date.now() / 1000 - 1000 * 24 * 3600, () =>
      makeDevelopmentKeys(keys.folder),
    );
    this.#keys.set(authority, keys);
    return keys;
  }

  /** Keys of our own authority, with another signer. Returns the name under which bundles are made with them. */
  signer(
    name: string,
    { purpose = 'emailProtection,codeSigning', from = -365, until = 3650, by = 'ours' }: SignerFacts = {},
  ): string {
    const folder = join(this.folder, name);
    this.#keys.set(name, { folder, areForDevelopment: true });
    execFileSync('cp', ['-a', this.keys(by).folder, folder]);
    certify(folder, 'update', { name, purpose, from, until });
    return name;
  }

  /** A revocation list of an authority. `revoked`: names of signers. */
  list(number: number, revoked: readonly string[] = [], by = 'ours'): string {
    const { folder } = this.keys(by);
    const certificates = revoked.map((name) => join(this.keys(name).folder, 'update.crt'));
    return revocationList(folder, number, certificates);
  }

  /** Makes a bundle. Returns its path. */
  make(version: string, { authority = 'ours', name = qemu.name, time, build }: BundleFacts = {}): string {
    const image = join(this.folder, 'image');
    writeFileSync(image, Buffer.alloc(4096, version));
    return atTime(time, () => this.#make(version, authority, name, image, build));
  }

  #make(version: string, authority: string, name: string, image: string, build: string | undefined): string {
    const file = join(this.folder, `${++this.#made}.raucb`);
    makeBundle(join(this.folder, 'work'), file, {
      kind: name,
      version,
      description: 'a test',
      fit: image,
      root: image,
      date: 1_700_000_000,
      keys: this.keys(authority),
      ...(build !== undefined && { build }),
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
    'chmod',
    'chown',
    'cmp',
    'cp',
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
    'sha256sum',
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
  /** Further lines of the image's release file. */
  readonly release?: string;
  /** Seconds since 1970 by the clock of the board; by default that of this machine. */
  readonly time?: number;
  /** Whether a time server has set the clock. */
  readonly isSet?: boolean;
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

  /** @param keyring file with the authority of the image; those beside it, as the recipe calls them, are in the image as well */
  constructor(
    keyring: string,
    { slot = 'A', version = '1.1.0', floor = '', state, release = '', time, isSet = true }: AgentParts = {},
  ) {
    const { folder } = this;
    for (const name of ['bin', 'scripts', 'run/agent', 'dev', 'data/update', 'data/root', 'etc/rauc'])
      mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(
      join(folder, 'etc/postern-release'),
      `version=${version}\nboard=${qemu.name}\nfloor=${floor}\n${release}`,
    );
    const trying = state?.trying === slot ? 1 : 0;
    writeFileSync(
      join(folder, 'cmdline'),
      `quiet postern.slot=${slot} postern.trying=${trying} rauc.slot=${slot}\n`,
    );
    const copies = [join(folder, 'dev/state-1'), join(folder, 'dev/state-2')] as const;
    this.state = new BootStateCopies(copies);
    this.state.change({ good: slot, ...state });
    if (time !== undefined) this.setClock(time);
    this.#programs(slot === 'A' ? 1 : 0, isSet);
    this.trust('keyring', readFileSync(keyring, 'utf8'));
    for (const name of ['common', 'boot-state', 'bundle-checks', 'trust', 'agent'])
      writeFileSync(join(folder, 'scripts', name), this.#here(readFileSync(join(scripts, name), 'utf8')));
    // What ends or restarts the machine only tells it here. The shell takes a function before a program of busybox.
    const harmless =
      'reboot() { :; }\nkillall() { :; }\nsync() { :; }\nrenice() { echo ready >&2; }\nsay() { :; }\n';
    const copied = '#!/bin/sh\nexit 0\n';
    writeFileSync(join(folder, 'scripts/second-copy'), copied, { mode: 0o755 });
    writeFileSync(join(folder, 'scripts/common'), harmless, { flag: 'a' });
    this.slots = new RaucSlots({
      agent: join(folder, 'run/agent'),
      partitions: join(folder, 'dev'),
      diagnosis: join(folder, 'run/diagnosis'),
      bundleFile: this.bundle,
      lists: join(folder, 'run/revoked.pem'),
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
      .replaceAll('/etc/rauc/', `${folder}/etc/rauc/`)
      .replaceAll('/etc/postern-release', `${folder}/etc/postern-release`)
      .replaceAll('/proc/cmdline', `${folder}/cmdline`)
      .replace('export PATH=', `export PATH=${folder}/bin:`);
  }

  /** Puts an authority or a revocation list into the image. */
  trust(name: 'keyring' | 'old-keyring' | 'second-keyring' | 'revoked', pem: string): void {
    writeFileSync(join(this.folder, 'etc/rauc', `${name}.pem`), pem);
  }

  /** Sets the clock of the board. */
  setClock(time: number): void {
    writeFileSync(join(this.folder, 'clock'), String(time));
  }

  /** The clock of the board. */
  get clock(): number {
    return Number(readFileSync(join(this.folder, 'clock'), 'utf8'));
  }

  /**
   * RAUC: its own check, and in place of an installation the images and what it stores of the slot. `between` runs before an
   * installation, and `after` behind it.
   * @param other number that RAUC has for the slot that does not run
   */
  #programs(other: number, isSet: boolean): void {
    const { folder } = this;
    // The board's own settings of RAUC.
    const settings = readFileSync(join(board, 'etc/rauc/system.conf'), 'utf8').replace('@board@', qemu.name);
    writeFileSync(join(folder, 'etc/rauc/system.conf'), settings);
    const program = (name: string, text: string) =>
      writeFileSync(join(folder, 'bin', name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
    applets(join(folder, 'bin'));
    const withClock = skipClocks
      ? ''
      : `[ -e ${folder}/clock ] && export LD_PRELOAD=${clockShim()} TEST_TIME=$(cat ${folder}/clock)`;
    program('openssl', `${withClock}\nexec /usr/bin/openssl "$@"`);
    program('adjtimex', `echo '    status:       ${isSet ? '0' : '64 (UNSYNC)'}'`);
    // A board with a clock of its own here. Other forms of a time are read as on the board.
    program(
      'date',
      `case "$*" in
  -s*) time=$2; echo "\${time#@}" > ${folder}/clock ;;
  +%s) cat ${folder}/clock 2> /dev/null || exec busybox date +%s ;;
  *-D*) exec busybox date "$@" ;;
  *) exec busybox date "$@" $([ -e ${folder}/clock ] && echo "-d @$(cat ${folder}/clock)") ;;
esac`,
    );
    const slot = other === 1 ? 'b' : 'a';
    program(
      'rauc',
      `${withClock}
case "$2" in
  install)
    [ -e ${folder}/between ] && . ${folder}/between
    facts=$(/usr/bin/rauc "$1" info --output-format=shell "$3" 2> /dev/null) || { echo 'signature verification failed'; exit 1; }
    eval "$facts"
    unset LD_PRELOAD
    rm -rf ${folder}/images
    unsquashfs -q -n -d ${folder}/images "$3" > /dev/null 2>&1
    cp ${folder}/images/root.img ${folder}/dev/root-${slot}
    cp ${folder}/images/boot.img ${folder}/dev/boot-${slot}
    [ -e ${folder}/after ] && . ${folder}/after
    echo ' 50% writing'
    # An installation takes longer than the gateway needs to see how far it is.
    while [ -e ${folder}/unseen ]; do sleep 0.05; done
    for kind in rootfs boot; do
      printf '[slot.%s.${other}]\\nbundle.compatible=%s\\nbundle.version=%s\\nbundle.build=%s\\nsize=4096\\n\\n' $kind "$RAUC_MF_COMPATIBLE" "$RAUC_MF_VERSION" "$RAUC_MF_BUILD"
    done > ${folder}/data/root/rauc.status
    ;;
  mount) unset LD_PRELOAD; rm -rf ${folder}/run/rauc; mkdir ${folder}/run/rauc; unsquashfs -q -n -d ${folder}/run/rauc/bundle "$3" > /dev/null 2>&1 ;;
  *) exec /usr/bin/rauc "$@" ;;
esac`,
    );
  }

  /**
   * What the recovery system does with the bundle: its own functions and whom it believes, on the data and the boot state of this
   * board. The image's authorities are those with which the board was flashed. Returns what it says.
   */
  recover(): string {
    const init = readFileSync(join(board, '../recovery/init'), 'utf8');
    const part = (from: string, to: string) => init.slice(init.indexOf(from), init.indexOf(to));
    const script = [
      ...['common', 'boot-state', 'bundle-checks', 'trust'].map((name) => `. /usr/lib/postern/${name}`),
      'say() { echo "$*"; }',
      'umount() { :; }',
      'sleep() { :; }',
      part('# Reads what a version says of itself', 'read_state'),
      'version=1.1.0 slot=B number=2 boot=boot-b root=root-b attempts=3',
      part('# The last healthy version says', 'name=$(head'),
      part('# The digest of an image', '# Fetches a bundle'),
      'install_bundle /data/update/bundle.raucb',
    ];
    const file = join(this.folder, 'scripts/recovery');
    writeFileSync(file, this.#here(script.join('\n')));
    return execFileSync('busybox', ['sh', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  }

  /** Has the next installation wait, once it has told how far it is, until the returned function is called. */
  holdInstallation(): () => void {
    const file = join(this.folder, 'unseen');
    writeFileSync(file, '');
    return () => rmSync(file, { force: true });
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

  /** Switches the board off and on. What is in memory is lost. */
  async restart(): Promise<this> {
    await this.#stop();
    for (const name of ['run', 'scripts/run'])
      rmSync(join(this.folder, name), { recursive: true, force: true });
    mkdirSync(join(this.folder, 'run/agent'), { recursive: true });
    return await this.start();
  }

  /** Puts a bundle where the gateway puts it. */
  put(file: string): void {
    execFileSync('cp', [file, this.bundle]);
  }

  /** Replaces the bundle by another one after the agent has checked it, before RAUC installs it. */
  swap(file: string): void {
    writeFileSync(join(this.folder, 'between'), `cp ${file} ${this.bundle}\n`);
  }

  /** Has what RAUC wrote changed behind its back. */
  change(script: string): void {
    writeFileSync(join(this.folder, 'after'), script.replaceAll('/dev/', `${this.folder}/dev/`));
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

  async #stop(): Promise<void> {
    if (!this.#child || this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop();
    rmSync(this.folder, { recursive: true });
  }
}
