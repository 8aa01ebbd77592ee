// `npm run bench:tunnel`: a tunnelled DM package from a CoAP client through gateway (the bundle), broker (mosquitto) and the
// head-end's MQTT binding, and back. Against it: the same client and server with nothing between, and a bare MQTT round trip with
// QoS 1 through the same broker. Each once with mosquitto as it comes, and once with `set_tcp_nodelay true`. All parties are
// processes of their own and take turns within each round. `--quick` measures briefly; `--write` records the figures.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { measured, today } from '../../build/figures.ts';
import { measuring, optionsOf } from '../options.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { writeGatewayFile } from './gateway-file.ts';
import { cpuSeconds, machine, ratios } from './measure.ts';
import { type Latency, load, packageBytes, type Work } from './tunnel-load.ts';

const flags = optionsOf(
  'bench:tunnel',
  'A tunnelled DM package through gateway, broker and head-end, against a bare MQTT round trip.',
  measuring,
);
const rounds = flags.quick ? 2 : 5;
/** What is measured in one round: one device, a few that pause as devices do, and many without a pause. */
const works = {
  alone: { count: flags.quick ? 50 : 200, outstanding: 1 },
  few: { count: flags.quick ? 300 : 1000, outstanding: 8, pause: 100 },
  many: { count: flags.quick ? 5000 : 20_000, outstanding: 64 },
} as const satisfies Record<string, Work>;
type WorkName = keyof typeof works;
const workNames = Object.keys(works) as WorkName[];
const root = fileURLToPath(new URL('../..', import.meta.url));
await using stack = new AsyncDisposableStack();

/** A way to measure: a process whose CPU counts, and how it is made to work. */
interface Contender {
  readonly child: ChildProcess;
  readonly work: (work: Work) => Promise<Latency>;
  /** µs per package with 64 at once. */
  readonly cpu: number[];
  /** Times in µs, of each round. */
  readonly times: Readonly<Record<WorkName, { readonly p50: number[]; readonly p99: number[] }>>;
}

const contender = (child: ChildProcess, work: Contender['work']): Contender => ({
  child,
  work,
  cpu: [],
  times: { alone: { p50: [], p99: [] }, few: { p50: [], p99: [] }, many: { p50: [], p99: [] } },
});

function run(args: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  stack.defer(() => void child.kill('SIGKILL'));
  return child;
}

const peers = fileURLToPath(new URL('tunnel-peers.ts', import.meta.url));

async function start(...args: string[]) {
  const child = run([peers, ...args]);
  const lines = createInterface(child.stdout!);
  const [ready] = (await once(lines, 'line')) as [string];
  return { child, lines, ready };
}

async function direct(): Promise<Contender> {
  const { child, ready } = await start('stub');
  return contender(child, (work) => load(Number(ready), work));
}

async function bare(broker: string): Promise<Contender> {
  await start('echo', broker);
  const { child, lines } = await start('bare', broker);
  return contender(child, async (work) => {
    child.stdin!.write(`${JSON.stringify(work)}\n`);
    const [line] = (await once(lines, 'line')) as [string];
    return JSON.parse(line) as Latency;
  });
}

async function tunnel(broker: string): Promise<Contender> {
  await start('headend', broker);
  const folder = mkdtempSync(join(tmpdir(), 'postern-bench-'));
  stack.defer(() => rmSync(folder, { recursive: true }));
  const file = writeGatewayFile(
    folder,
    broker,
    `# The devices of the load have no account at the gateway and send without a pause. No device in the field does both.
[admission]
address = 1000
prefix = 100000
strangers = 1000000
[tunnel]
device-rate = 1000000
`,
  );
  const child = run([join(root, 'dist/postern.mjs'), 'gateway', '--config', file]);
  let port = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  // Reading goes on after that: a full pipe would block the gateway.
  createInterface(child.stdout!).on('line', (line) => {
    if (line.includes('"gateway.started"')) port = (JSON.parse(line) as { port: number }).port;
    if (line.includes('"mqtt.connected"')) resolve();
  });
  await promise;
  return contender(child, (work) => load(port, work));
}

async function measure({ child, work, cpu, times }: Contender): Promise<void> {
  for (const name of workNames) {
    const before = cpuSeconds(child);
    const { p50, p99 } = await work(works[name]);
    if (name === 'many') cpu.push(((cpuSeconds(child) - before) * 1e6) / works.many.count);
    times[name].p50.push(p50);
    times[name].p99.push(p99);
  }
}

const stock = stack.use(await startMosquitto(['allow_anonymous true']));
const nodelay = stack.use(await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']));
const contenders = {
  'tunnel-stock': await tunnel(stock.url),
  'tunnel-nodelay': await tunnel(nodelay.url),
  direct: await direct(),
  'mqtt-stock': await bare(stock.url),
  'mqtt-nodelay': await bare(nodelay.url),
};
const names = {
  'tunnel-stock': 'tunnelled package, mosquitto as it comes',
  'tunnel-nodelay': 'tunnelled package, `set_tcp_nodelay true`',
  direct: 'CoAP with nothing between',
  'mqtt-stock': 'bare MQTT QoS 1, mosquitto as it comes',
  'mqtt-nodelay': 'bare MQTT QoS 1, `set_tcp_nodelay true`',
} as const;
const all = Object.entries(contenders) as [keyof typeof contenders, Contender][];

for (const [, { work }] of all) await work(works.many);
for (let round = 1; round <= rounds; round++) {
  for (const [, one] of all) await measure(one);
  console.error(`round ${round} of ${rounds}`);
}

const { direct: straight } = contenders;
const both = contenders['mqtt-stock'].cpu.map((cpu, round) => cpu + straight.cpu[round]!);
const { alone, few, many } = works;
const titles: Readonly<Record<WorkName, string>> = {
  alone: 'One device',
  few: `${few.outstanding} devices with pauses`,
  many: `${many.outstanding} devices`,
};
const latencies = (work: WorkName, share: 'p50' | 'p99') =>
  all.map(([key, { times }]) => [
    `${work}-${share}-${key}`,
    measured(`${titles[work]}, ${share}, ${names[key]}`, 'µs', times[work][share]),
  ]);
publish(
  'tunnel',
  {
    title: 'Tunnel',
    date: today(),
    machine: machine(),
    how: [
      `\`npm run bench:tunnel\`: packages of ${packageBytes} bytes in both directions, in ${rounds} interleaved rounds: ${alone.count} of one device, ${few.count.toLocaleString('en')} of ${few.outstanding} devices that pause up to ${few.pause} ms between two, and ${many.count.toLocaleString('en')} of ${many.outstanding} devices without a pause.`,
      'Client, gateway (the bundle), mosquitto and the MQTT binding of the head-end are processes of one machine.',
      `CPU is that of the gateway, of the CoAP server, or of the MQTT client, with ${many.outstanding} devices.`,
    ].join(' '),
    figures: Object.fromEntries([
      ...all.map(([key, { cpu }]) => [
        `cpu-${key}`,
        measured(`CPU per package, ${names[key]}`, 'µs', cpu, key === 'tunnel-stock' ? { atMost: 65 } : {}),
      ]),
      [
        'vs-bare',
        measured(
          'CPU per package, tunnelled / sum of bare MQTT and CoAP',
          'times',
          ratios(contenders['tunnel-stock'].cpu, both),
        ),
      ],
      ...workNames.flatMap((work) => [...latencies(work, 'p50'), ...latencies(work, 'p99')]),
    ]),
  },
  flags.write,
);
