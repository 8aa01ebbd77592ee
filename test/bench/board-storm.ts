// `npm run bench:board-storm`: devices that come at once to an emulated board over DTLS, with and without kept associations.
// `--quick` takes fewer devices, and `--write` records the figures, for docs/performance.md.
import { resolve } from 'node:path';
import { publish } from '../../build/figure-pages.ts';
import { type Figure, measured, today, type Unit } from '../../build/figures.ts';
import { buildFor, imageIn, skipImages, versions } from '../firmware/images.ts';
import { measuring, optionsOf } from '../options.ts';
import { type BoardStorm, type BoardStorms, boardStorms, skipStorms } from './board-storms.ts';
import { machine } from './measure.ts';

const flags = optionsOf(
  'bench:board-storm',
  'Time, CPU and memory of an emulated board to which many devices come at once over DTLS.',
  {
    devices: { what: 'how many come; at most 100 with --quick', number: 1000 },
    rounds: { what: 'how often all is measured, each time with a new board; once with --quick', number: 3 },
    image: {
      what: 'output folder of `npm run image -- --developer`; an image is built if absent',
      value: 'FOLDER',
    },
    ...measuring,
  },
);
const obstacle = skipImages || skipStorms;
if (obstacle) throw new Error(obstacle);

const devices = flags.quick ? Math.min(100, flags.devices) : flags.devices;
const rounds = flags.quick ? 1 : flags.rounds;

async function builtImage(): Promise<{ disk: string; trust: string }> {
  const { folder } = await buildFor('storm', versions.first, { withDisk: true, isDeveloperImage: true });
  return imageIn(folder);
}

const image = flags.image === undefined ? await builtImage() : imageIn(resolve(flags.image));
const all: BoardStorms[] = [];
for (let round = 1; round <= rounds; round++) {
  console.error(`round ${round} of ${rounds}`);
  all.push(await boardStorms({ ...image, devices }));
}

const columns = {
  seconds: ['Time', 's'],
  cpuSeconds: ['CPU of the gateway', 's'],
  emulationSeconds: ['CPU of the emulation', 's'],
  before: ['Memory (RSS) before', 'MB'],
  megabytes: ['Memory (RSS) afterwards', 'MB'],
  peak: ['Highest memory (RSS)', 'MB'],
  free: ['Memory left for programs', 'MB'],
  handshakes: ['Handshakes', ''],
  failures: ['Handshakes that failed', ''],
  repetitions: ['Requests sent again', ''],
} as const satisfies Record<keyof BoardStorm, readonly [string, Unit]>;
const rows = {
  first: 'New devices',
  kept: 'Power cut of the board',
  anew: 'Power cut of board and devices',
} as const satisfies Record<keyof BoardStorms, string>;

const rowOf = (storm: keyof BoardStorms): [string, Figure][] =>
  Object.entries(columns).map(([column, [what, unit]]) => [
    `${rows[storm]}/${column}`,
    measured(
      what,
      unit,
      all.map((round) => round[storm][column as keyof BoardStorm]),
    ),
  ]);

publish(
  'storm',
  {
    title: 'Storm at a board',
    date: today(),
    machine: machine(),
    how: `\`npm run bench:board-storm\`: ${devices.toLocaleString('en')} devices, each at an address of its own, come at once to an emulated Cortex-A53 with 128 MB; ${rounds === 1 ? 'one round' : `medians of ${rounds} rounds`}. New devices shake hands (TLS_PSK_WITH_AES_128_CCM_8) and have one confirmable GET answered. Then the power of the board is cut, and the devices ask in the associations that both ends have kept. Then the power of all is cut, and the devices shake hands again. They repeat handshakes and requests as RFC 6347 and RFC 7252 say. Time is from the first datagram of a device to the last answer. CPU and memory of the gateway are what the kernel of the board counts, and CPU of the emulation is what the machine spends for the whole board.`,
    figures: Object.fromEntries((['first', 'kept', 'anew'] as const).flatMap(rowOf)),
  },
  flags.write,
);
