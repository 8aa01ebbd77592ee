// `npm run bench:telemetry`: light LwM2M clients tell a value a minute each, and a gateway reports them to its DM server. The gateway
// (the bundle), the broker (mosquitto) and the clients are processes of their own; the head-end runs in this process. `--quick` measures
// briefly; `--write` records the figures.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { single, today } from '../../build/figures.ts';
import type { EventName, FieldsOf } from '../../src/base/event-table.ts';
import { askGateway } from '../../src/gateway/console/admin-api.ts';
import type { GatewayStatus } from '../../src/gateway/status.ts';
import { measuring, optionsOf } from '../options.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { deviceId } from './crowd.ts';
import { Counter, portOf, startHeadend } from './fleet.ts';
import { writeGatewayFile } from './gateway-file.ts';
import { cpuSeconds, machine, residentMegabytes, within } from './measure.ts';

/** Clients of one process. */
const perProcess = 2500;

/** Counts also the values that arrive. */
class ValueCounter extends Counter {
  values = 0;
  bytes = 0;
  #enough: { readonly count: number; readonly resolve: () => void } | undefined;

  override emit(name: EventName, fields?: FieldsOf<EventName>): void {
    super.emit(name);
    if (name !== 'telemetry.received') return;
    const { values, bytes } = fields as FieldsOf<'telemetry.received'>;
    this.values += values;
    this.bytes += bytes;
    if (this.#enough && this.values >= this.#enough.count) this.#enough.resolve();
  }

  async untilValues(count: number): Promise<void> {
    if (this.values >= count) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#enough = { count, resolve };
    await promise;
  }
}

/** Waits for a line of a program. */
async function lineOf(lines: Interface, wanted: string): Promise<void> {
  for (;;) {
    const [line] = await once(lines, 'line');
    if (line === wanted) return;
  }
}

/**
 * Measures some minutes of values.
 * @param size clients
 * @param minutes in each of which each client tells one value
 */
async function measure(size: number, minutes: number, seconds: number) {
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'postern-telemetry-'));
  stack.defer(() => rmSync(folder, { recursive: true }));
  const broker = stack.use(await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']));
  const heard = new ValueCounter();
  const headend = stack.use(await startHeadend(broker.url, heard));
  const ids = Array.from({ length: size }, (_, at) => deviceId(at));
  const tables = `[limits]\ndevices = ${size}\n[lwm2m]\ninsecure-no-security = true\n${ids.map((id) => `[[lwm2m.device]]\nid = "${id}"\n`).join('')}`;
  const file = writeGatewayFile(folder, broker.url, tables);
  const bundle = fileURLToPath(new URL('../../dist/postern.mjs', import.meta.url));
  const processes: ChildProcess[] = [];
  const end = () => {
    for (const child of processes) child.kill('SIGKILL');
  };
  process.once('exit', end);
  stack.defer(() => void process.off('exit', end));
  stack.defer(end);
  const gateway = spawn(process.execPath, [bundle, 'gateway', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  processes.push(gateway);
  const port = await portOf(createInterface(gateway.stdout!));
  const program = fileURLToPath(new URL('light-clients.ts', import.meta.url));
  const clients: { readonly child: ChildProcess; readonly lines: Interface }[] = [];
  for (let first = 0; first < size; first += perProcess) {
    const args = [port, first, Math.min(perProcess, size - first), seconds].map(String);
    const child = spawn(process.execPath, [program, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
    processes.push(child);
    clients.push({ child, lines: createInterface(child.stdout!) });
    await lineOf(clients.at(-1)!.lines, 'ready');
    console.error(`${Math.min(size, first + perProcess)} clients are registered`);
  }
  await heard.until('alert.device-attach', size);
  const attached = residentMegabytes(gateway);
  const observed = Promise.all(clients.map(({ lines }) => lineOf(lines, 'observed')));
  await headend.observations.order('gw-1', {
    name: 'temperature',
    targets: {},
    paths: ['3303/0/5700'],
    attributes: { pmin: 1 },
    reportPeriod: seconds,
  });
  await observed;
  await heard.untilValues(size);
  console.error('all are observed');
  const status = async () => (await askGateway(join(folder, 'admin.sock'), '/status')) as GatewayStatus;
  const upOf = ({ budget }: GatewayStatus) => budget?.day.kinds.telemetry.up ?? 0;
  const before = {
    cpu: cpuSeconds(gateway),
    up: upOf(await status()),
    bytes: heard.bytes,
    values: heard.values,
  };
  const began = performance.now();
  for (let minute = 0; minute < minutes; minute++) {
    const told = Promise.all(clients.map(({ lines }) => lineOf(lines, 'told')));
    for (const { child } of clients) child.stdin!.write('go\n');
    await told;
  }
  await heard.untilValues(before.values + size * minutes);
  const elapsed = (performance.now() - began) / 1000;
  const values = size * minutes;
  const cpu = cpuSeconds(gateway) - before.cpu;
  const after = await status();
  if (after.telemetry.dropped > 0) throw new Error(`${after.telemetry.dropped} values were dropped`);
  return {
    share: (cpu / elapsed) * 100,
    cpu: (cpu * 1e6) / values,
    bytes: (heard.bytes - before.bytes) / values,
    up: (upOf(after) - before.up) / values,
    attached,
    observed: residentMegabytes(gateway),
    peak: residentMegabytes(gateway, 'VmHWM'),
  };
}

const flags = optionsOf('bench:telemetry', 'LwM2M clients that tell a value a minute.', measuring);
const [size, minutes, seconds] = flags.quick ? [500, 1, 10] : [10_000, 3, 60];
const found = await within(1200, measure(size, minutes, seconds));
const many = size.toLocaleString('en');
publish(
  'telemetry',
  {
    title: 'Telemetry',
    date: today(),
    machine: machine(),
    how: `\`npm run bench:telemetry\`: ${many} light LwM2M clients in processes of their own, over plain CoAP, without a network's delay. One observation has all of them. Each tells a value of \`/3303/0/5700\` once in ${seconds} s for ${minutes} of these times, in a notification that is not confirmable; the values wait for others ${seconds} s at most. The gateway is the bundle, with its state on disk, and reports to the DM server over mosquitto.`,
    figures: {
      share: single(`Gateway CPU of one core, ${many} values in ${seconds} s`, '%', found.share),
      cpu: single('Gateway CPU per value', 'µs', found.cpu),
      bytes: single('Bytes of the reports (SenML CBOR) per value', 'bytes', found.bytes),
      up: single('Bytes upstream per value, with DM message and MQTT', 'bytes', found.up),
      observed: single(`Memory (RSS) with ${many} clients observed`, 'MB', found.observed),
      attached: single(`Memory (RSS) with ${many} clients attached, before`, 'MB', found.attached),
      peak: single('Peak memory (RSS)', 'MB', found.peak),
    },
  },
  flags.write,
);
process.exit(0);
