// What the benchmarks of the gateway have in common: a gateway (the bundle) as a process of its own with its state on disk, a
// broker, a head-end in this process, and processes of reference devices.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { checkConfig } from '../../src/base/config.ts';
import type { EventName } from '../../src/base/event-table.ts';
import type { Events } from '../../src/base/events.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { Headend } from '../../src/headend/headend.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { deviceId, secrets } from './crowd.ts';
import { factoryDevices, writeGatewayFile } from './gateway-file.ts';

/** Devices that one process runs. */
const perProcess = 1250;
const ownBundle = fileURLToPath(new URL('../../dist/postern.mjs', import.meta.url));
const deviceProgram = fileURLToPath(new URL('devices.ts', import.meta.url));

/** Counts events by name. `until` waits for a count. */
export class Counter implements Events {
  readonly counts = new Map<EventName, number>();
  #waiting: { name: EventName; count: number; resolve: () => void }[] = [];

  emit(name: EventName): void {
    const count = (this.counts.get(name) ?? 0) + 1;
    this.counts.set(name, count);
    this.#waiting = this.#waiting.filter((waiter) => {
      if (waiter.name !== name || waiter.count > count) return true;
      waiter.resolve();
      return false;
    });
  }

  count(name: EventName): number {
    return this.counts.get(name) ?? 0;
  }

  async until(name: EventName, count: number): Promise<void> {
    if (this.count(name) >= count) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ name, count, resolve });
    await promise;
  }
}

export interface Fleet extends AsyncDisposable {
  readonly gateway: ChildProcess;
  /** The gateway's CoAP port on 127.0.0.1. */
  readonly port: number;
  readonly headend: Headend;
  readonly heard: Counter;
  /** Starts all devices. Resolves when all are attached. */
  attach(): Promise<void>;
}

/** Starts a DM server `dm.example` for the gateway `gw-1`, and waits for its broker. */
export async function startHeadend(
  broker: string,
  heard: Counter,
  device: readonly Readonly<Record<string, string>>[] = [],
): Promise<Headend> {
  const config = checkConfig(
    headendConfigSchema,
    {
      headend: { id: 'dm.example', state: ':memory:', 'session-timeout': 60 },
      mqtt: { url: broker },
      policy: { 'assisted-bootstrap': false },
      gateway: [
        { id: 'gw-1', 'client-secret': secrets.gatewayClient, 'server-secret': secrets.gatewayServer },
      ],
      device,
    },
    'bench',
  );
  const headend = new Headend(config, { events: heard });
  headend.start();
  await heard.until('mqtt.connected', 1);
  return headend;
}

export interface FleetGateway {
  /** Added to the environment of the gateway's process. */
  readonly env?: NodeJS.ProcessEnv;
  /** Path of the gateway's bundle: that of this tree if absent. */
  readonly bundle?: string | undefined;
}

/** Configuration of the gateway of a fleet, behind what all benchmarks have. */
export const fleetTables = (ids: readonly string[]): string =>
  `[limits]\ndevices = 10000\n${factoryDevices(ids)}`;

/**
 * A gateway with its state on disk, a broker, a head-end, and processes of devices that wait for `attach`.
 * @throws {Error} when the gateway ends before it serves
 */
export async function fleet(
  size: number,
  withServer: boolean,
  { env = {}, bundle = ownBundle }: FleetGateway = {},
): Promise<Fleet> {
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'postern-bench-'));
  stack.defer(() => rmSync(folder, { recursive: true }));
  const children: ChildProcess[] = [];
  // A process that ends early does not dispose of its fleets.
  const end = () => {
    for (const child of children) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', end);
  stack.defer(() => void process.off('exit', end));
  const broker = stack.use(await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']));
  const ids = Array.from({ length: size }, (_, at) => deviceId(at));
  const heard = new Counter();
  const headend = stack.use(
    await startHeadend(
      broker.url,
      heard,
      withServer
        ? ids.map((id) => ({ id, 'client-secret': secrets.client(id), 'server-secret': secrets.server(id) }))
        : [],
    ),
  );
  const file = writeGatewayFile(folder, broker.url, fleetTables(ids));
  const gateway = spawn(process.execPath, [bundle, 'gateway', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  children.push(gateway);
  const ended = once(gateway, 'exit');
  stack.defer(async () => {
    gateway.kill();
    await ended;
  });
  const port = await portOf(createInterface(gateway.stdout!));
  const processes: { child: ChildProcess; lines: Interface }[] = [];
  for (let first = 0; first < size; first += perProcess) {
    const args = [`coap://127.0.0.1:${port}`, String(first), String(Math.min(perProcess, size - first))];
    const child = spawn(process.execPath, [deviceProgram, ...args, ...(withServer ? ['server'] : [])], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    stack.defer(() => void child.kill('SIGKILL'));
    children.push(child);
    const lines = createInterface(child.stdout!);
    await once(lines, 'line');
    processes.push({ child, lines });
  }
  const owned = stack.move();
  return {
    gateway,
    port,
    headend,
    heard,
    attach: async () => {
      await Promise.all(
        processes.map(({ child, lines }) => {
          child.stdin!.write('go\n');
          return once(lines, 'line');
        }),
      );
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/**
 * The gateway's CoAP port, from its log. Reading goes on after that: a full pipe would block the gateway.
 * @throws {Error} when the gateway ends before
 */
export async function portOf(log: Interface): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  log.once('close', () => reject(new Error('the gateway ended before it served')));
  log.on('line', (line) => {
    if (line.includes('"gateway.started"')) resolve((JSON.parse(line) as { port: number }).port);
  });
  return await promise;
}
