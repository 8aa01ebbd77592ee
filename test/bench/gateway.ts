// `npm run bench:gateway`: an attach storm, and a fan-out against single transparent sessions. Gateway (the bundle), broker
// (mosquitto) and devices are processes of their own; the head-end is here. `--quick` for a look, `--write` for the docs.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkConfig } from '../../src/base/config.ts';
import type { EventName } from '../../src/base/event-table.ts';
import type { Events } from '../../src/base/events.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { Headend } from '../../src/headend/headend.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { deviceId, secrets } from './crowd.ts';
import { cpuSeconds, machine, median, spread, writeSection } from './report.ts';

const { values: flags } = parseArgs({ options: { quick: { type: 'boolean' }, write: { type: 'boolean' } } });
const stormSize = flags.quick ? 500 : 5000;
const fleetSize = flags.quick ? 200 : 1000;
const rounds = flags.quick ? 2 : 3;
/** Devices of one process. */
const perProcess = 1250;
const root = fileURLToPath(new URL('../..', import.meta.url));

/** Counts events, and lets the benchmark wait until one has happened so often. */
class Counter implements Events {
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

const megabytes = ({ pid }: ChildProcess, what: 'VmRSS' | 'VmHWM'): number =>
  Number(new RegExp(`${what}:\\s+(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

interface Fleet extends AsyncDisposable {
  readonly gateway: ChildProcess;
  readonly headend: Headend;
  readonly heard: Counter;
  /** Starts all devices; resolves when all are attached. */
  attach(): Promise<void>;
}

/** A gateway with a state on disk, a broker, a head-end, and processes of devices that wait for the word. */
async function fleet(size: number, withServer: boolean): Promise<Fleet> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-bench-'));
  const broker = await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']);
  const ids = Array.from({ length: size }, (_, at) => deviceId(at));
  const heard = new Counter();
  const config = checkConfig(
    headendConfigSchema,
    {
      headend: { id: 'dm.example', state: ':memory:', 'session-timeout': 60 },
      mqtt: { url: broker.url },
      policy: { 'assisted-bootstrap': false },
      gateway: [
        { id: 'gw-1', 'client-secret': secrets.gatewayClient, 'server-secret': secrets.gatewayServer },
      ],
      device: withServer
        ? ids.map((id) => ({ id, 'client-secret': secrets.client(id), 'server-secret': secrets.server(id) }))
        : [],
    },
    'bench',
  );
  const headend = new Headend(config, { events: heard });
  headend.start();
  await heard.until('mqtt.connected', 1);
  const file = join(folder, 'gateway.toml');
  writeFileSync(
    file,
    `[gateway]
id = "gw-1"
state = "${join(folder, 'state.db')}"
admin-socket = "${join(folder, 'admin.sock')}"
[coap]
port = 0
interfaces = ["lo"]
insecure-plain-coap = true
[mqtt]
url = "${broker.url}"
[dm-server]
id = "dm.example"
client-secret = "${secrets.gatewayClient}"
server-secret = "${secrets.gatewayServer}"
[limits]
devices = 10000
${ids.map((id) => `[[bootstrap.device]]\nid = "${id}"\nfactory-secret = "${secrets.factory(id)}"\n`).join('')}`,
  );
  const gateway = spawn(process.execPath, [join(root, 'dist/postern.mjs'), 'gateway', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const log = createInterface(gateway.stdout!);
  const port = await portOf(log);
  const processes: { child: ChildProcess; lines: Interface }[] = [];
  for (let first = 0; first < size; first += perProcess) {
    const args = [`coap://127.0.0.1:${port}`, String(first), String(Math.min(perProcess, size - first))];
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL('devices.ts', import.meta.url)), ...args, ...(withServer ? ['server'] : [])],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    const lines = createInterface(child.stdout!);
    await once(lines, 'line');
    processes.push({ child, lines });
  }
  return {
    gateway,
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
    [Symbol.asyncDispose]: async () => {
      for (const { child } of processes) child.kill('SIGKILL');
      const ended = once(gateway, 'exit');
      gateway.kill();
      await ended;
      await headend[Symbol.asyncDispose]();
      await broker[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
    },
  };
}

/** Goes on reading: a log that nobody reads stops who writes it. */
async function portOf(log: Interface): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  log.on('line', (line) => {
    if (line.includes('"gateway.started"')) resolve((JSON.parse(line) as { port: number }).port);
  });
  return await promise;
}

async function storm() {
  await using crowd = await fleet(stormSize, false);
  const idle = megabytes(crowd.gateway, 'VmRSS');
  const cpu = cpuSeconds(crowd.gateway);
  const began = performance.now();
  await crowd.attach();
  const attached = (performance.now() - began) / 1000;
  await crowd.heard.until('alert.device-attach', stormSize);
  const alerted = (performance.now() - began) / 1000;
  return {
    attached,
    alerted,
    cpu: (cpuSeconds(crowd.gateway) - cpu) / stormSize,
    sessions: crowd.heard.count('session.started'),
    alerts: crowd.heard.count('alert.device-attach'),
    idle,
    peak: megabytes(crowd.gateway, 'VmHWM'),
  };
}

async function fanOut() {
  await using crowd = await fleet(fleetSize, true);
  const { gateway, headend, heard } = crowd;
  await crowd.attach();
  await heard.until('alert.device-attach', fleetSize);
  const fanned = { rate: [] as number[], cpu: [] as number[] };
  const single = { rate: [] as number[], cpu: [] as number[] };
  const before = megabytes(gateway, 'VmRSS');
  const measure = async (into: typeof fanned, work: () => Promise<void>) => {
    const cpu = cpuSeconds(gateway);
    const began = performance.now();
    await work();
    into.rate.push((fleetSize * 1000) / (performance.now() - began));
    into.cpu.push(((cpuSeconds(gateway) - cpu) * 1000) / fleetSize);
  };
  for (let round = 1; round <= rounds; round++) {
    const label = `round ${round}`;
    await measure(fanned, async () => {
      const ended = heard.until('alert.command-fanout', heard.count('alert.command-fanout') + 1);
      await headend.fanOut('gw-1', {
        name: 'label',
        targets: {},
        returnFormat: 3,
        command: `<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>${label}</Data></Item></Replace>`,
      });
      await ended;
      const result = headend.fanouts().at(-1)?.result ?? '';
      if (!result.includes(`Done="${fleetSize}"`))
        throw new Error(`the fan-out failed: ${result.slice(0, 500)}`);
    });
    await measure(single, async () => {
      for (let at = 0; at < fleetSize; at++) {
        const [done] = await headend.manage(deviceId(at), [
          { name: 'Replace', uri: './Settings/Label', data: label },
        ]);
        if (done?.status !== 200) throw new Error(`${deviceId(at)} answered ${done?.status}`);
      }
    });
    console.error(`round ${round} of ${rounds}`);
  }
  return { fanned, single, before, peak: megabytes(gateway, 'VmHWM') };
}

const verdict = (ok: boolean) => (ok ? 'met' : 'missed');
const one = (value: number) => value.toFixed(1);
const attach = await storm();
console.error('the storm is over');
const { fanned, single, before, peak } = await fanOut();
const row = (name: string, { rate, cpu }: typeof fanned) =>
  `| ${name} | ${one(median(rate))} | ${spread(rate, 1)} | ${median(cpu).toFixed(2)} | ${spread(cpu, 2)} |`;
const section = [
  `Gateway (the bundle, state on disk), mosquitto, and reference devices in processes of their own, on one machine of ${machine()}: what the devices and the head-end take, the gateway does not get.`,
  '',
  `${stormSize} blank devices that start at once, as after a power cut: all bootstrapped and attached after ${one(attach.attached)} s, all alerts taken by the DM server after ${one(attach.alerted)} s, in ${attach.sessions} sessions of the gateway; ${attach.alerts} alerts, ${(attach.cpu * 1000).toFixed(1)} ms of the gateway's CPU for each device. Its RSS was ${one(attach.idle)} MB before and ${one(attach.peak)} MB at most.`,
  '',
  `- Peak RSS under 160 MB: ${one(attach.peak)} MB, ${verdict(attach.peak < 160)}.`,
  '',
  `One Replace for ${fleetSize} devices, ${rounds} interleaved rounds:`,
  '',
  '| Way | devices/s | min to max | gateway CPU ms/device | min to max |',
  '|---|---|---|---|---|',
  row('Fan-out by the gateway (proxy mode)', fanned),
  row('Single sessions with the DM server, one after the other (transparent mode)', single),
  '',
  `- The fan-out is ${(median(fanned.rate) / median(single.rate)).toFixed(1)} times as fast as the loop, with ${(median(fanned.cpu) / median(single.cpu)).toFixed(2)} times its CPU on the gateway.`,
  `- RSS of the gateway: ${one(before)} MB with ${fleetSize} devices attached, ${one(peak)} MB at most.`,
].join('\n');
console.log(section);
if (flags.write) writeSection('gateway', section);
