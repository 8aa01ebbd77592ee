// `npm run bench:memory`: resident memory (RSS) of the gateway's bundle as a process. `--write` records the figures.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { measured, single, today } from '../../build/figures.ts';
import { prepareSnapshot } from '../../firmware-image/recipe/snapshot.ts';
import { measuring, optionsOf } from '../options.ts';
import { fleet } from './fleet.ts';
import { type IdleOptions, idleGateway } from './idle-gateway.ts';
import { machine, residentMegabytes } from './measure.ts';

const flags = optionsOf('bench:memory', 'Resident memory of the gateway, idle and after work.', measuring);
const rounds = flags.quick ? 1 : 5;
const stormSize = flags.quick ? 100 : 1000;
const atRest = 10_000;
/** Milliseconds after which a gateway that does nothing has come to rest. */
const rest = 3000;
/** Milliseconds after which it has also made the first copy of its state, and its timers have run hundreds of times. */
const late = 660_000;
/** As postern.service and the firmware start the gateway. */
const env = { MALLOC_ARENA_MAX: '1' };
const bundle = fileURLToPath(new URL('../../dist/postern.mjs', import.meta.url));

/** The snapshot, made in a folder as the firmware's build makes it. */
function makeSnapshot(folder: string): string {
  copyFileSync(
    fileURLToPath(new URL('../../dist/postern-snapshot.cjs', import.meta.url)),
    join(folder, 'postern.cjs'),
  );
  execFileSync(process.execPath, prepareSnapshot(folder, 'postern.cjs'), { cwd: folder });
  return join(folder, 'postern.snapshot');
}

async function bare(code: string): Promise<number> {
  const child = spawn(process.execPath, ['-e', `${code};setInterval(() => {}, 1e6);console.log()`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout!, 'data');
  await pause(rest / 3);
  const megabytes = residentMegabytes(child);
  child.kill();
  await once(child, 'exit');
  return megabytes;
}

async function idle(
  program: readonly string[],
  options: IdleOptions = {},
  milliseconds = rest,
): Promise<number> {
  await using gateway = await idleGateway(program, { env, ...options });
  await pause(milliseconds);
  return residentMegabytes(gateway.process);
}

async function afterAttaches(): Promise<number> {
  await using crowd = await fleet(stormSize, false, { env });
  await crowd.attach();
  await crowd.heard.until('alert.device-attach', stormSize);
  await pause(rest);
  return residentMegabytes(crowd.gateway);
}

const folder = mkdtempSync(join(tmpdir(), 'postern-memory-'));
const snapshot = makeSnapshot(folder);
const fromSnapshot = ['--snapshot-blob', snapshot, bundle];
const parts =
  "require('node:sqlite').DatabaseSync;new (require('node:sqlite').DatabaseSync)(':memory:');require('node:tls').createSecureContext();require('node:http')";
const found = {
  node: [] as number[],
  parts: [] as number[],
  plain: [] as number[],
  tls: [] as number[],
  snapshot: [] as number[],
  attached: [] as number[],
  rest: [] as number[],
};
const lateFigures = flags.quick ? [] : Promise.all([idle([bundle], {}, late), idle(fromSnapshot, {}, late)]);
for (let round = 1; round <= rounds; round++) {
  found.node.push(await bare(''));
  found.parts.push(await bare(parts));
  found.plain.push(await idle([bundle]));
  found.tls.push(await idle([bundle], { tls: true }));
  found.snapshot.push(await idle(fromSnapshot));
  found.rest.push(await idle([bundle], { devices: atRest }));
  console.error(`round ${round} of ${rounds}`);
}
found.attached.push(await afterAttaches());
const [plainLate, snapshotLate] = await lateFigures;
rmSync(folder, { recursive: true });
publish(
  'memory',
  {
    title: 'Memory',
    date: today(),
    machine: machine(),
    how: `\`npm run bench:memory\`: resident memory of one process on ${process.arch}, file-backed pages of Node included, in ${rounds} rounds. The gateway is connected to mosquitto, its state is on disk, and the broker is reached without TLS where nothing else is said. It runs as postern.service and the firmware start it, with \`MALLOC_ARENA_MAX=1\`. After 11 minutes it has also made the first copy of its state.`,
    figures: {
      plain: measured('Gateway, idle', 'MB', found.plain, { atMost: 68 }),
      tls: measured('Gateway, idle, broker with TLS', 'MB', found.tls),
      snapshot: measured('Gateway, idle, started from the snapshot', 'MB', found.snapshot, { atMost: 60 }),
      ...(plainLate !== undefined && {
        'plain-late': single('Gateway, idle for 11 minutes', 'MB', plainLate, { atMost: 68 }),
      }),
      ...(snapshotLate !== undefined && {
        'snapshot-late': single(
          'Gateway, idle for 11 minutes, started from the snapshot',
          'MB',
          snapshotLate,
          { atMost: 60 },
        ),
      }),
      rest: measured(`Gateway, ${atRest.toLocaleString('en')} devices attached, at rest`, 'MB', found.rest, {
        atMost: 120,
      }),
      attached: measured(
        `Gateway, after ${stormSize.toLocaleString('en')} devices attached at once`,
        'MB',
        found.attached,
      ),
      node: measured('Node alone', 'MB', found.node),
      parts: measured('Node with SQLite, TLS and HTTP in use', 'MB', found.parts),
    },
  },
  flags.write,
);
