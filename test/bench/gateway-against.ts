// `npm run bench:gateway -- --against REF`: the gateway of another revision and that of this tree, in turn in one run.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { type Figure, measured, type Target, today } from '../../build/figures.ts';
import { deviceId } from './crowd.ts';
import { fleetTables } from './fleet.ts';
import { writeGatewayFile } from './gateway-file.ts';
import { fanOuts, sizesOf, storm } from './gateway-work.ts';
import { machine, ratios, within } from './measure.ts';
import { buildRevision, type Commit, commitOf, endOf, NoSuchRevision, RevisionError } from './revision.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
/**
 * The last revision before the work on durable state and on the CPU of a bootstrap and a fan-out. That work was to halve both, so
 * they have a target against this revision alone.
 */
const reference = '9e86894ddfd697e585c3b7b04b699296cd756564';
/** Seconds that a trial of a gateway may take, and each part of a round. A storm takes one to two minutes. */
const limits = { trial: 60, part: 900 };
/** Fan-outs and loops of one process of a gateway. In the first one, code is not compiled yet. */
const turns = 2;

const operations = ['storm', 'attach', 'fan-out', 'loop'] as const;
type Operation = (typeof operations)[number];

/** One of the two gateways. */
interface Side {
  readonly name: string;
  /** Path of its bundle. */
  readonly bundle: string;
  /** What each operation cost it: µs per device. */
  readonly cpu: Readonly<Record<Operation, number[]>>;
  /** Peak memory of each storm, in MB. */
  readonly peak: number[];
}

const sideOf = (name: string, bundle: string): Side => ({
  name,
  bundle,
  cpu: { storm: [], attach: [], 'fan-out': [], loop: [] },
  peak: [],
});

/**
 * Tries whether a gateway has the interface that the benchmark uses: the keys of the configuration, the log, and the protocols that
 * the devices and the head-end of this tree speak.
 * @throws {RevisionError} when it does not
 */
export async function demandInterface(name: string, bundle: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-bench-'));
  const file = writeGatewayFile(folder, 'mqtt://127.0.0.1:1883', fleetTables([deviceId(0)]));
  const args = [bundle, 'gateway', '--config', file, '--check'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  rmSync(folder, { recursive: true });
  if (status !== 0)
    throw new RevisionError(
      `${name}: refuses the configuration of the benchmark:\n${endOf(stderr + stdout)}`,
    );
  try {
    await within(limits.trial, fanOuts(3, 1, bundle));
  } catch (thrown) {
    throw new RevisionError(
      `${name}: does not serve the devices and the head-end of this tree: ${(thrown as Error).message}`,
    );
  }
}

/** A storm at one gateway, in a process and with a state of its own. */
async function measureStorm({ bundle, cpu, peak }: Side, size: number): Promise<void> {
  const found = await within(limits.part, storm(size, bundle));
  cpu.storm.push(found.cpu);
  peak.push(found.peak);
}

/** A fleet at one gateway, in a process and with a state of its own. */
async function measureFleet({ bundle, cpu }: Side, size: number): Promise<void> {
  const { attach, fanned, loop } = await within(limits.part, fanOuts(size, turns, bundle));
  cpu.attach.push(attach);
  cpu['fan-out'].push(...fanned.cpu);
  cpu.loop.push(...loop.cpu);
}

/** For each operation: the ratio, the gateway before, and the gateway of this tree. */
function figuresOf(before: Side, now: Side, titles: Readonly<Record<Operation, string>>, halved: Target) {
  const ratioOf = (operation: Operation): [string, Figure] => [
    `${operation}-ratio`,
    measured(
      `Gateway CPU per device, ${titles[operation]}, now / before`,
      'times',
      ratios(now.cpu[operation], before.cpu[operation]),
      operation === 'storm' || operation === 'fan-out' ? halved : {},
    ),
  ];
  const cpuOf = (operation: Operation): [string, Figure][] =>
    (
      [
        ['before', before],
        ['now', now],
      ] as const
    ).map(([when, { cpu }]) => [
      `${operation}-${when}`,
      measured(`Gateway CPU per device, ${titles[operation]}, ${when}`, 'µs', cpu[operation]),
    ]);
  return Object.fromEntries([
    ...operations.map(ratioOf),
    ...operations.flatMap(cpuOf),
    ['peak-before', measured('Peak memory (RSS) of the storm, before', 'MB', before.peak)],
    ['peak-now', measured('Peak memory (RSS) of the storm, now', 'MB', now.peak)],
  ]);
}

async function compare({ id, short, date }: Commit, isQuick: boolean, write: boolean): Promise<void> {
  using revision = buildRevision(root, { id, short, date });
  const before = sideOf(short, revision.bundle);
  const now = sideOf('this tree', join(root, 'dist/postern.mjs'));
  for (const { name, bundle } of [before, now]) await demandInterface(name, bundle);
  const { storm: stormSize, fleet: fleetSize, rounds } = sizesOf(isQuick);
  for (let round = 1; round <= rounds; round++) {
    const order = round % 2 === 1 ? [before, now] : [now, before];
    for (const side of order) await measureStorm(side, stormSize);
    for (const side of order) await measureFleet(side, fleetSize);
    console.error(`round ${round} of ${rounds} of the comparison`);
  }
  const [crowdOf, fleetOf] = [stormSize.toLocaleString('en'), fleetSize.toLocaleString('en')];
  publish(
    'against',
    {
      title: 'Gateway before and now',
      date: today(),
      machine: machine(),
      how: [
        `\`npm run bench:gateway -- --against ${short}\`: the gateway of this revision of ${date} (before) and the present one (now), each in the bundle of its own build. They take turns in ${rounds} rounds, in alternating order.`,
        'Devices, head-end, broker and configuration are those of the present tree for both, so the figures show what changed in the gateway alone.',
        `Each part of a round has a gateway process and a state of its own. Storm: ${crowdOf} blank devices start at once; its CPU counts until the DM server has all alerts. Then ${fleetOf} devices with accounts at the DM server start at once; ${turns} times, all of them get one Replace by a fan-out, and another one in single sessions.`,
      ].join(' '),
      figures: figuresOf(
        before,
        now,
        {
          storm: `storm of ${crowdOf} blank devices`,
          attach: `start of ${fleetOf} devices with accounts`,
          'fan-out': `fan-out to ${fleetOf} devices`,
          loop: 'loop of single sessions',
        },
        id === reference ? { atMost: 0.5 } : {},
      ),
    },
    write,
  );
}

/**
 * Compares the gateway of a revision with that of this tree. A revision that cannot be compared ends the process with a text that
 * says why: with code 2 when it does not exist, else with 1.
 */
export async function against(ref: string, isQuick: boolean, write: boolean): Promise<void> {
  // What was checked out, and processes of a fleet, are removed when the process exits; a signal by itself exits without that.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  try {
    await compare(commitOf(root, ref), isQuick, write);
  } catch (thrown) {
    if (!(thrown instanceof RevisionError)) throw thrown;
    console.error(thrown.message);
    process.exit(thrown instanceof NoSuchRevision ? 2 : 1);
  }
}
