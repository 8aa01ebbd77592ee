import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stringify } from 'smol-toml';
import type { EventName } from '../../../src/base/event-table.ts';
import { bootStateOf } from '../../../src/gateway/update/directory-slots.ts';
import { secrets } from '../../journeys/site.ts';
import type { Broker } from '../../peers/brokers.ts';

export const program = fileURLToPath(new URL('../../../dist/postern.mjs', import.meta.url));
/** Milliseconds that a gateway may take to end. */
const patience = 10_000;
export const device = 'urn:dev:ops:1';

interface Line {
  readonly event: string;
  readonly [field: string]: unknown;
}

/** `postern launch` in a process of its own, with slots of its own, as on a machine without a firmware image. */
export class Launched implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), 'postern-launch-'));
  readonly slots: string;
  readonly lines: Line[] = [];
  readonly #broker: Broker;
  readonly #waiting = new Set<{ fits: (line: Line) => boolean; resolve: (line: Line) => void }>();
  readonly #commands = new Set<ReturnType<typeof spawn>>();
  #child: ReturnType<typeof spawn> | undefined;
  #isDisposed = false;

  /**
   * @param update keys of the table `update`
   * @param tables keys of other tables, by the table's name
   */
  constructor(
    broker: Broker,
    authority: string,
    update: Record<string, unknown> = {},
    tables: Readonly<Record<string, object>> = {},
  ) {
    this.#broker = broker;
    this.slots = String(update.directory ?? join(this.folder, 'slots'));
    writeFileSync(join(this.folder, 'ca.pem'), authority);
    mkdirSync(this.slots, { recursive: true });
    const config: Record<string, object> = {
      gateway: {
        id: 'gw-1',
        state: join(this.folder, 'state.db'),
        'admin-socket': join(this.folder, 'admin.sock'),
      },
      coap: { port: 0, leisure: 50, 'insecure-plain-coap': true, interfaces: ['lo'], multicast: false },
      mqtt: { url: this.#broker.url },
      'dm-server': {
        id: 'dm.example',
        'client-secret': secrets.gatewayClient,
        'server-secret': secrets.gatewayServer,
      },
      bootstrap: { device: [{ id: device, 'factory-secret': secrets.factory(device) }] },
      update: {
        slots: 'directory',
        directory: this.slots,
        authority: join(this.folder, 'ca.pem'),
        attempts: 2,
        'health-deadline': 10,
        ...update,
      },
    };
    for (const [name, table] of Object.entries(tables)) config[name] = { ...config[name], ...table };
    writeFileSync(join(this.folder, 'gateway.toml'), stringify(config));
  }

  get boot() {
    return bootStateOf(this.slots).read();
  }

  start(): void {
    this.#check();
    const args = [program, 'launch', '--slots', this.slots, '--config', join(this.folder, 'gateway.toml')];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    createInterface({ input: child.stdout }).on('line', (text) => {
      if (process.env.POSTERN_TEST_LOG) console.error(text);
      if (!text.startsWith('{')) return;
      const line = JSON.parse(text) as Line;
      this.lines.push(line);
      for (const waiter of [...this.#waiting]) if (waiter.fits(line)) waiter.resolve(line);
    });
    child.stderr.resume();
  }

  async says(event: EventName, fields: Record<string, unknown> = {}, from = 0): Promise<Line> {
    const fits = (line: Line) =>
      line.event === event && Object.entries(fields).every(([key, value]) => line[key] === value);
    const found = this.lines.slice(from).find(fits);
    if (found) return found;
    const { promise, resolve } = Promise.withResolvers<Line>();
    const waiter = { fits, resolve };
    this.#waiting.add(waiter);
    return await promise.finally(() => this.#waiting.delete(waiter));
  }

  /**
   * Ends launcher and gateway as an init system does: by SIGTERM, and by force when they are still there after a while.
   * @throws when it took force: a gateway that hangs at its end is a failure
   */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGTERM');
    let isForced = false;
    const timer = setTimeout(() => {
      isForced = true;
      for (const pid of [...childrenOf(child.pid!), child.pid!]) process.kill(pid, 'SIGKILL');
    }, patience);
    await gone;
    clearTimeout(timer);
    assert.ok(!isForced, 'launcher and gateway end after SIGTERM');
  }

  async cli(...args: string[]): Promise<{ code: number; said: string }> {
    this.#check();
    const child = spawn(process.execPath, [program, ...args, '--socket', join(this.folder, 'admin.sock')]);
    this.#commands.add(child);
    const said: string[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => said.push(String(text)));
    const [code] = (await once(child, 'close')) as [number];
    return { code, said: said.join('') };
  }

  /** A test that timed out runs on: what it starts then, nobody ends. */
  #check(): void {
    if (this.#isDisposed) throw new Error('the test of this gateway has ended');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    for (const command of this.#commands) command.kill('SIGKILL');
    try {
      await this.kill();
    } finally {
      rmSync(this.folder, { recursive: true });
    }
  }
}

/** Process IDs of the children of a process. */
const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);

/** A program of another version, as esbuild would have made it; with something before it. */
export const versioned = (before = ''): string => before + readFileSync(program, 'utf8');
export const crashing = "if (process.argv[2] === 'gateway') process.exit(3);\n";
export const deaf = "import dgram from 'node:dgram'; dgram.Socket.prototype.send = function () {};\n";
