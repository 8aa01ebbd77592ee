// `npm run bench:flash`: an attach storm and a fan-out with syncs as slow as those of SD cards and eMMC, against the same without.
// A preloaded shim adds the time to each fsync and fdatasync of the gateway's process, and counts syncs and octets written. A CoAP
// ping beside the work shows how long the gateway's loop stands still. `--quick` measures briefly; `--write` records the figures.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { measured, today } from '../../build/figures.ts';
import { measuring, optionsOf } from '../options.ts';
import { slowSync } from '../peers/slow-sync.ts';
import { fleet } from './fleet.ts';
import { machine, ratios } from './measure.ts';

const flags = optionsOf(
  'bench:flash',
  'An attach storm and a fan-out with syncs as slow as those of SD cards and eMMC, against the same without.',
  measuring,
);
const devices = flags.quick ? 200 : 500;
const rounds = flags.quick ? 1 : 3;
/** Fan-outs one after the other: a single one is too short for a 99th percentile of the pings. */
const fanOuts = 5;
/** Milliseconds added to each sync. */
const syncTime = 20;
/** Milliseconds between two pings. */
const pingEvery = 10;

/** Pings the gateway while the work lasts. Returns the times of the answers in milliseconds. */
async function pingWhile(port: number, work: () => Promise<void>): Promise<number[]> {
  const pinger = spawn(
    process.execPath,
    [fileURLToPath(new URL('pinger.ts', import.meta.url)), String(port), String(pingEvery)],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const lines = createInterface(pinger.stdout);
  await once(lines, 'line');
  await work();
  pinger.stdin.write('end\n');
  const [times] = (await once(lines, 'line')) as [string];
  return JSON.parse(times) as number[];
}

const percentile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? 0;

/** One gateway that attaches all devices and does the fan-outs. */
async function run(folder: string, milliseconds: number) {
  const { env, counts } = slowSync(folder, milliseconds);
  await using crowd = await fleet(devices, false, { env });
  const { headend, heard, port } = crowd;
  const before = counts();
  const began = performance.now();
  let attach = 0;
  const attachPings = await pingWhile(port, async () => {
    await crowd.attach();
    attach = (performance.now() - began) / 1000;
  });
  await heard.until('alert.device-attach', devices);
  const after = counts();
  const fanOutBegan = performance.now();
  const fanOutPings = await pingWhile(port, async () => {
    for (let number = 1; number <= fanOuts; number++) {
      const ended = heard.until('alert.command-fanout', number);
      await headend.fanOut('gw-1', {
        name: `label-${number}`,
        targets: {},
        returnFormat: 3,
        command: `<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>${number}</Data></Item></Replace>`,
      });
      await ended;
    }
  });
  const fanOut = (performance.now() - fanOutBegan) / 1000;
  for (const { result = '' } of headend.fanouts())
    if (!result.includes(`Done="${devices}"`)) throw new Error(`a fan-out failed: ${result.slice(0, 500)}`);
  return {
    attach,
    fanOut,
    attachPing: percentile(attachPings, 0.99),
    fanOutPing: percentile(fanOutPings, 0.99),
    syncs: (after.syncs - before.syncs) / devices,
    octets: (after.octets - before.octets) / devices / 1000,
  };
}

const folder = mkdtempSync(join(tmpdir(), 'postern-flash-'));
const fast: Awaited<ReturnType<typeof run>>[] = [];
const slow: typeof fast = [];
for (let round = 1; round <= rounds; round++) {
  fast.push(await run(folder, 0));
  slow.push(await run(folder, syncTime));
  console.error(`round ${round} of ${rounds}`);
}
rmSync(folder, { recursive: true });
const of = (runs: typeof fast, what: keyof (typeof fast)[number]) => runs.map((one) => one[what]);
publish(
  'flash',
  {
    title: 'Slow flash',
    date: today(),
    machine: machine(),
    how: `\`npm run bench:flash\`: ${devices} blank devices start at once, then ${fanOuts} fan-outs go to all of them, one after the other, with ${syncTime} ms added to each fsync and fdatasync of the gateway, and without, in turn (${rounds} rounds). A CoAP ping every ${pingEvery} ms shows how long the loop of the gateway stands still.`,
    figures: {
      'attach-ratio': measured(
        `Attach storm, with ${syncTime} ms per sync / without`,
        'times',
        ratios(of(slow, 'attach'), of(fast, 'attach')),
        { atMost: 1.5 },
      ),
      'fan-out-ratio': measured(
        `Fan-outs, with ${syncTime} ms per sync / without`,
        'times',
        ratios(of(slow, 'fanOut'), of(fast, 'fanOut')),
        { atMost: 1.5 },
      ),
      'attach-ping': measured('CoAP ping during the storm, slow syncs, p99', 'ms', of(slow, 'attachPing'), {
        atMost: 20,
      }),
      'attach-ping-fast': measured('CoAP ping during the storm, without, p99', 'ms', of(fast, 'attachPing')),
      'fan-out-ping': measured(
        'CoAP ping during the fan-out, slow syncs, p99',
        'ms',
        of(slow, 'fanOutPing'),
        { atMost: 20 },
      ),
      'fan-out-ping-fast': measured(
        'CoAP ping during the fan-out, without, p99',
        'ms',
        of(fast, 'fanOutPing'),
      ),
      'attach-time': measured('Attach storm, slow syncs', 's', of(slow, 'attach')),
      'attach-time-fast': measured('Attach storm, without', 's', of(fast, 'attach')),
      syncs: measured('Syncs per attach, slow syncs', 'times', of(slow, 'syncs')),
      octets: measured('Written to files per attach, slow syncs', 'KB', of(slow, 'octets')),
    },
  },
  flags.write,
);
