import { type ChildProcess, execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { EventName, FieldsOf } from '../../src/base/event-table.ts';
import { EventRecorder } from '../event-recorder.ts';
import type { LabMessage, LabRoles } from './lab-party.ts';

const partyScript = fileURLToPath(new URL('lab-party.ts', import.meta.url));
/** Names of network namespaces are global on a machine, and several test runs may share it. */
const prefix = `postern-${process.pid}`;
let labs = 0;

/** Why no lab can be built here; false where it can. For the option `skip` of a test. */
export const labSkip: string | false = (() => {
  const name = `${prefix}-probe`;
  const made = spawnSync('ip', ['netns', 'add', name], { encoding: 'utf8' });
  if (made.status !== 0)
    return `network namespaces cannot be made here: ${(made.stderr || String(made.error ?? '')).trim()}`;
  const linked = spawnSync(
    'ip',
    ['link', 'add', 'probe0', 'netns', name, 'type', 'veth', 'peer', 'name', 'probe1', 'netns', name],
    { encoding: 'utf8' },
  );
  spawnSync('ip', ['netns', 'del', name]);
  return linked.status === 0 ? false : `veth pairs cannot be made here: ${linked.stderr.trim()}`;
})();

const namespaces = new Set<string>();
const cleanUp = () => {
  for (const name of namespaces) spawnSync('ip', ['netns', 'del', name]);
  namespaces.clear();
};
process.once('exit', cleanUp);
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    cleanUp();
    process.exit(1);
  });

/** Deletes what a test run left that was killed. */
function cleanUpAfterOthers(): void {
  for (const line of execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' }).split('\n')) {
    const [, name, pid] = /^(postern-(\d+)-\S+)/.exec(line) ?? [];
    if (name !== undefined && !existsSync(`/proc/${pid}`)) spawnSync('ip', ['netns', 'del', name]);
  }
}
if (!labSkip) cleanUpAfterOthers();

/**
 * Machines on networks of their own: network namespaces of the kernel, joined by virtual cables. They go when the test
 * ends, in whatever way.
 */
export class Lab {
  readonly #name = `${prefix}-${++labs}`;
  readonly #stack = new AsyncDisposableStack();

  constructor(test: Pick<TestContext, 'after'>) {
    test.after(() => this.#stack.disposeAsync());
  }

  /** A machine with its loopback interface alone. IPv6 addresses are usable at once, unless they ask for detection. */
  machine(name: string): Machine {
    const namespace = `${this.#name}-${name}`;
    execFileSync('ip', ['netns', 'add', namespace]);
    namespaces.add(namespace);
    this.#stack.defer(() => {
      spawnSync('ip', ['netns', 'del', namespace]);
      namespaces.delete(namespace);
    });
    const machine = this.#stack.use(new Machine(namespace));
    machine.ip('link', 'set', 'lo', 'up');
    for (const scope of ['all', 'default']) machine.set(`net.ipv6.conf.${scope}.accept_dad`, '0');
    return machine;
  }

  /** A cable between two machines, with an interface at each end. Both ends are up. */
  cable(a: Machine, interfaceOfA: string, b: Machine, interfaceOfB: string): void {
    const ends = [interfaceOfA, 'netns', a.namespace, 'type', 'veth', 'peer', 'name', interfaceOfB, 'netns'];
    execFileSync('ip', ['link', 'add', ...ends, b.namespace]);
    for (const [machine, name] of [
      [a, interfaceOfA],
      [b, interfaceOfB],
    ] as const)
      machine.ip('link', 'set', name, 'up');
    a.untilReady(interfaceOfA);
    b.untilReady(interfaceOfB);
  }
}

/** One machine of a lab. */
export class Machine implements AsyncDisposable {
  readonly namespace: string;
  readonly #parties = new Set<Party>();

  constructor(namespace: string) {
    this.namespace = namespace;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#parties].map((party) => party[Symbol.asyncDispose]()));
  }

  /** Runs `ip` on this machine. */
  ip(...args: string[]): string {
    return execFileSync('ip', ['-netns', this.namespace, ...args], { encoding: 'utf8', stdio: 'pipe' });
  }

  /** Runs a program of Node on this machine, and returns what it prints. Rejects when it fails. */
  async node(script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
    const command = ['netns', 'exec', this.namespace, process.execPath, script, ...args];
    const { stdout } = await promisify(execFile)('ip', command, { env: { ...process.env, ...env } });
    return stdout;
  }

  /** Sets a parameter of the kernel, such as `net.ipv4.ip_forward`. */
  set(name: string, value: string): void {
    const file = `/proc/sys/${name.replaceAll('.', '/')}`;
    const script = ['sh', '-c', 'echo "$2" > "$1"', 'set', file, value];
    execFileSync('ip', ['netns', 'exec', this.namespace, ...script]);
  }

  /** Gives an interface an address with its prefix length. */
  address(name: string, ...addresses: string[]): void {
    for (const address of addresses)
      this.ip('address', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
  }

  /** Switches an interface on. Its other end must be on. */
  up(name: string): void {
    this.ip('link', 'set', name, 'up');
    this.untilReady(name);
  }

  /** Waits until an interface has its link-local IPv6 address, which the kernel makes when it sees the other end. */
  untilReady(name: string): void {
    for (let tries = 0; this.#linkLocal(name) === undefined; tries++)
      if (tries > 1000) throw new Error(`${name} has no link-local address`);
  }

  /** The link-local IPv6 address of an interface, without a zone. */
  linkLocal(name: string): string {
    const found = this.#linkLocal(name);
    if (found === undefined) throw new Error(`${name} has no link-local address`);
    return found;
  }

  #linkLocal(name: string): string | undefined {
    const shown = this.ip('-6', 'address', 'show', 'dev', name, 'scope', 'link', '-tentative');
    return /inet6 (fe80:[0-9a-f:]+)\//.exec(shown)?.[1];
  }

  /** Starts a process on this machine. It is ready when this resolves. */
  async start<Role extends keyof LabRoles>(
    role: Role,
    ...args: Parameters<LabRoles[Role]>
  ): Promise<Party<Awaited<ReturnType<LabRoles[Role]>>>> {
    const party = new Party(this.namespace, () => this.#parties.delete(party));
    this.#parties.add(party);
    await party.call('start', role, ...args);
    return party as unknown as Party<Awaited<ReturnType<LabRoles[Role]>>>;
  }
}

/** What a process can do before it has a role. */
interface Unborn {
  readonly start: (role: string, ...args: unknown[]) => Promise<void>;
}

/** A process on a machine of a lab. */
export class Party<Api = Unborn> implements AsyncDisposable {
  readonly events = new EventRecorder();
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #gone: () => void;
  #count = 0;

  constructor(namespace: string, gone: () => void) {
    this.#gone = gone;
    this.#child = spawn('ip', ['netns', 'exec', namespace, process.execPath, partyScript], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    this.#child.on('message', (message: LabMessage) => {
      if ('event' in message) {
        this.events.emit(message.event as EventName, message.fields as FieldsOf<EventName>);
        return;
      }
      const waiting = this.#calls.get(message.id);
      this.#calls.delete(message.id);
      if (message.error === undefined) waiting?.resolve(message.result);
      else waiting?.reject(new Error(message.error));
    });
    this.#child.once('exit', (code, signal) => {
      for (const { reject } of this.#calls.values())
        reject(new Error(`the process ended: ${code ?? signal}`));
      this.#calls.clear();
    });
  }

  /** Calls a method of the process. */
  async call<Name extends keyof Api & string>(
    name: Name,
    ...args: Api[Name] extends (...args: infer Args) => unknown ? Args : never
  ): Promise<Api[Name] extends (...args: never[]) => infer Result ? Awaited<Result> : never> {
    const id = ++this.#count;
    const answer = Promise.withResolvers<unknown>();
    this.#calls.set(id, answer);
    this.#child.send({ id, name, args });
    return (await answer.promise) as never;
  }

  /** Ends the process as a power cut does. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#gone();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}
