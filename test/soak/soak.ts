// `npm run soak -- --minutes N`: a gateway (the bundle) with 2,000 devices that attach, have sessions, leave, move and fall
// silent, while the broker and, in the first quarter, the gateway restart now and then. Fails when memory, handles, the store
// or the bytes written for each change grow in the second half. `--write` records the figures, with their length.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { single, today } from '../../build/figures.ts';
import { askGateway } from '../../src/gateway/console/admin-api.ts';
import type { GatewayStatus } from '../../src/gateway/status.ts';
import { deviceId } from '../bench/crowd.ts';
import { Counter, startHeadend } from '../bench/fleet.ts';
import { factoryDevices, writeGatewayFile } from '../bench/gateway-file.ts';
import { cpuSeconds, machine, residentMegabytes } from '../bench/measure.ts';
import { measuring, optionsOf } from '../options.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { onCollection, reportCollections } from './collections.ts';
import { longEnough, partsOf, type Sample, slopeLimits, slopePerHour } from './slope.ts';

const flags = optionsOf(
  'soak',
  'A gateway with devices that come, go and move, while broker and gateway restart. Fails when memory, handles, store or bytes written grow in the second half.',
  {
    minutes: { number: 60, what: 'minutes of the whole' },
    devices: { number: 2000, what: 'devices' },
    seed: { number: 1, what: 'seed of the random choices' },
    port: { number: 25_683, what: 'UDP port of the gateway' },
    write: measuring.write,
  },
);
const minutes = flags.minutes;
const size = flags.devices;
/** Processes of devices, and changes of devices per second in each. */
const crowds = { processes: 2, perSecond: 3 } as const;
const sampleEvery = 10_000;
/** Largest ratio of bytes written for a change, end to begin of what is measured; least share of changes that are done. */
const limits = { bytesRatio: 1.3, done: 80 } as const;
/** CoAP port of the gateway. It stays the same over restarts; two runs at once need two ports. */
const port = flags.port;

const folder = mkdtempSync(join(tmpdir(), 'postern-soak-'));
const state = join(folder, 'state.db');
const broker = await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']);
const ids = Array.from({ length: size }, (_, at) => deviceId(at));
const heard = new Counter();
const headend = await startHeadend(broker.url, heard);
const file = writeGatewayFile(folder, broker.url, `[limits]\ndevices = 10000\n${factoryDevices(ids)}`, port);

const samples = { rss: [] as Sample[], live: [] as Sample[], handles: [] as Sample[], store: [] as Sample[] };

async function startGateway(): Promise<ChildProcess> {
  const bundle = fileURLToPath(new URL('../../dist/postern.mjs', import.meta.url));
  const child = spawn(process.execPath, [...reportCollections, bundle, 'gateway', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit', 'pipe'],
  });
  onCollection(child, (value) => {
    if (samples.rss.length > 0) samples.live.push({ minute: minute(), value });
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  createInterface(child.stdout!).on('line', (line) => {
    if (line.includes('"gateway.started"')) resolve();
  });
  await promise;
  return child;
}

let gateway = await startGateway();
let failedStops = 0;
async function stopGateway(): Promise<void> {
  const ended = once(gateway, 'exit');
  gateway.kill();
  const [code] = await ended;
  if (code !== 0) failedStops++;
}
const changes = { ok: 0, failed: 0 };
const children: ChildProcess[] = [];
await Promise.all(
  Array.from({ length: crowds.processes }, async (_, number) => {
    const share = Math.ceil(size / crowds.processes);
    const program = fileURLToPath(new URL('crowd.ts', import.meta.url));
    const args = [number * share, Math.min(share, size - number * share), flags.seed + number];
    const child = spawn(
      process.execPath,
      [program, `coap://127.0.0.1:${port}`, ...args.map(String), String(crowds.perSecond)],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    children.push(child);
    const attached = Promise.withResolvers<void>();
    createInterface(child.stdout!).on('line', (line) => {
      if (line === 'ready') child.stdin!.write('go\n');
      if (line === 'attached') attached.resolve();
      if (line.endsWith(' ok')) changes.ok++;
      if (line.endsWith(' failed')) changes.failed++;
    });
    await attached.promise;
  }),
);
console.error(`${size} devices are attached, seed ${flags.seed}`);

/** Bytes that the gateway handed to files, as the kernel counts them. */
const writtenBytes = (): number =>
  Number(/^write_bytes: (\d+)/m.exec(readFileSync(`/proc/${gateway.pid}/io`, 'utf8'))?.[1]);
/** Memory of the gateway as its admin API tells it, in mebibytes. */
async function gatewayMemory(): Promise<GatewayStatus['memory']> {
  return ((await askGateway(join(folder, 'admin.sock'), '/status')) as GatewayStatus).memory;
}

const written: { readonly changes: number; readonly bytes: number }[] = [];
const begin = performance.now();
const minute = () => (performance.now() - begin) / 60_000;
const parts = partsOf(minutes);
let restarts = 0;
let cpu = 0;
for (let tick = 1; minute() < minutes; tick++) {
  await pause(sampleEvery);
  if (tick % 18 === 0) {
    await broker.stop();
    await pause(1500);
    await broker.restart();
  }
  if (minute() < parts.restarts && tick % 9 === 0) {
    await stopGateway();
    gateway = await startGateway();
    restarts++;
  }
  if (minute() < parts.measured) continue;
  if (samples.rss.length === 0) cpu = cpuSeconds(gateway);
  const now = { minute: minute() };
  samples.rss.push({ ...now, value: residentMegabytes(gateway) });
  samples.handles.push({ ...now, value: readdirSync(`/proc/${gateway.pid}/fd`).length });
  samples.store.push({ ...now, value: statSync(state).size / 1e6 });
  written.push({ changes: changes.ok, bytes: writtenBytes() });
  if (samples.rss.length % 6 === 1) {
    const { rss, heap, outside } = await gatewayMemory();
    const live = samples.live.at(-1)?.value.toFixed(1);
    console.error(
      `minute ${minute().toFixed(1)}: RSS ${rss} MB, heap ${heap} MB, outside ${outside} MB; after a collection ${live} MB`,
    );
  }
}

const between = (from: (typeof written)[number] | undefined, to: (typeof written)[number] | undefined) =>
  ((to?.bytes ?? 0) - (from?.bytes ?? 0)) / Math.max(1, (to?.changes ?? 0) - (from?.changes ?? 0));
const middle = written[Math.floor(written.length / 2)];
const [early, late] = [between(written[0], middle), between(middle, written.at(-1))];
const done = changes.ok / Math.max(1, changes.ok + changes.failed);
const measuredChanges = (written.at(-1)?.changes ?? 0) - (written[0]?.changes ?? 0);
const cpuEach = ((cpuSeconds(gateway) - cpu) * 1e6) / Math.max(1, measuredChanges);
const log = statSync(`${state}-wal`).size / 1e6;
const last = samples.rss.at(-1)?.value ?? 0;

for (const child of children) child.kill('SIGKILL');
await stopGateway();
await headend[Symbol.asyncDispose]();
await broker[Symbol.asyncDispose]();
rmSync(folder, { recursive: true });

/** Targets of slopes, which a run that is too short has not. */
const atMost = (limit: number) => (minutes < longEnough ? {} : { atMost: limit });
const figures = {
  minutes: single('Length', 'min', minutes),
  changes: single('Changes of devices that were done', '', changes.ok),
  done: single('Changes done, of all that were tried', '%', 100 * done, { atLeast: limits.done }),
  cpu: single('Gateway CPU per change', 'µs', cpuEach),
  rss: single('Memory (RSS) at the end', 'MB', last),
  live: single('Objects and buffers after a collection, at the end', 'MB', samples.live.at(-1)?.value ?? NaN),
  'rss-slope': single(
    'Slope of memory (RSS)',
    'MB/h',
    slopePerHour(samples.rss),
    atMost(slopeLimits.megabytes),
  ),
  'live-slope': single(
    'Slope of objects and buffers after collections',
    'MB/h',
    slopePerHour(samples.live),
    atMost(slopeLimits.liveMegabytes),
  ),
  'handles-slope': single(
    'Slope of open handles',
    '/h',
    slopePerHour(samples.handles),
    atMost(slopeLimits.handles),
  ),
  'store-slope': single(
    'Slope of the database file',
    'MB/h',
    slopePerHour(samples.store),
    atMost(slopeLimits.storeMegabytes),
  ),
  log: single('Write-ahead log at the end', 'MB', log),
  'bytes-ratio': single('Bytes written for a change, second half / first half', 'times', late / early, {
    atMost: limits.bytesRatio,
  }),
  bytes: single('Bytes written for a change', 'KB', late / 1000),
  stops: single('Stops of the gateway that failed', '', failedStops, { atMost: 0 }),
};
publish(
  'soak',
  {
    title: 'Soak',
    date: today(),
    machine: machine(),
    how: `\`npm run soak -- --minutes ${minutes}\`: ${size.toLocaleString('en')} reference devices that have sessions, leave, move and fall silent, ${crowds.processes * crowds.perSecond} changes tried per second; the broker restarts every three minutes; the gateway restarted ${restarts} times in the first quarter. Slopes are of the second half.`,
    figures,
  },
  flags.write,
);
const bad = Object.values(figures).filter(
  ({ value, atMost, atLeast }) =>
    Number.isNaN(value) || value > (atMost ?? value) || value < (atLeast ?? value),
);
for (const { what, value } of bad) console.error(`beyond its limit: ${what}: ${value}`);
process.exitCode = bad.length === 0 ? 0 : 1;
