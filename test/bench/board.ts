// `npm run bench:board`: from power-on of an emulated board to the first answer to a CoAP request from outside.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { virt } from '../../firmware-image/qemu/hardware.ts';
import { runCommand, UsageError } from '../../firmware-image/recipe/command.ts';
import { encodeEmpty, Type } from '../../src/wire/coap/codec.ts';
import { Board } from '../firmware/board.ts';
import { cpuSeconds, machine, median, spread, writeSection } from './report.ts';
import { type ChartedStart, startChart } from './start-chart.ts';

const help = `npm run bench:board -- [OPTIONS]

Flashes an image onto emulated boards, boots it once so that it has what it needs, and then measures starts.

  --image FOLDER  what \`npm run image\` left there; dist/firmware/qemu-arm64 by default. Given more than once, the images are
                  started in turn, which is the only fair way on a machine that others use as well
  --starts N      of each image, 5 by default
  --write         puts the result into docs/firmware.md, and its picture, docs/board-start.svg
`;
/** Seconds that a start may take. */
const budget = 10;
/** Milliseconds between two pings. */
const between = 50;

/** An empty confirmable message, which everybody who speaks CoAP answers with a reset. [RFC 7252, 4.3] */
const ping = encodeEmpty(Type.CON, 1);

interface Start {
  /** Seconds from power-on. */
  readonly kernel: number;
  readonly initramfs: number;
  readonly started: number;
  readonly answer: number;
  /** Seconds of the machine that emulates it, until the answer. */
  readonly cpu: number;
}

async function answerOf(port: number): Promise<void> {
  const socket = createSocket('udp4');
  const asking = setInterval(() => socket.send(ping, port, '127.0.0.1'), between);
  try {
    await once(socket, 'message');
  } finally {
    clearInterval(asking);
    socket.close();
  }
}

async function measure(board: Board): Promise<Start> {
  const at = async (pattern: RegExp) => {
    await board.machine.says(pattern, 120_000);
    return board.machine.age / 1000;
  };
  // The kernel says what it thinks of a watchdog that the initramfs has armed, and closed again.
  const steps = [at(/^Starting kernel/), at(/watchdog did not stop/), at(/"event":"gateway\.started"/)];
  board.machine.start();
  await answerOf(board.coapPort);
  const answer = board.machine.age / 1000;
  const cpu = cpuSeconds(board.machine);
  const [kernel, initramfs, started] = await Promise.all(steps);
  await board.machine.cutPower();
  return { kernel: kernel!, initramfs: initramfs!, started: started!, answer, cpu };
}

async function flashed(folder: string): Promise<Board> {
  const disk = existsSync(folder) && readdirSync(folder).find((name) => /^postern-.*\.img$/.test(name));
  if (!disk) throw new Error(`${folder} has no disk image: npm run image`);
  const board = await Board.flash({
    disk: join(folder, disk),
    hardware: virt({ trust: join(folder, 'trust.dts') }),
  });
  await board.start();
  await board.machine.cutPower();
  return board;
}

interface Measured {
  readonly name: string;
  readonly measured: readonly Start[];
}

/** Starts boards that were flashed with these images, in turn. */
async function measureInTurn(folders: readonly string[], starts: number): Promise<Measured[]> {
  await using boards = new AsyncDisposableStack();
  const runs: { name: string; board: Board; measured: Start[] }[] = [];
  for (const folder of folders.map((one) => resolve(one)))
    runs.push({ name: basename(folder), board: boards.use(await flashed(folder)), measured: [] });
  for (let round = 0; round < starts; round++)
    for (const { name, board, measured } of runs) {
      const start = await measure(board);
      measured.push(start);
      console.error(
        `${name}, start ${round + 1} of ${starts}: ${start.answer.toFixed(1)} s, ${start.cpu.toFixed(1)} s of CPU`,
      );
    }
  return runs;
}

const valuesOf = (measured: readonly Start[], key: keyof Start): number[] => measured.map((one) => one[key]);
const column = (measured: readonly Start[], key: keyof Start): string =>
  `${median(valuesOf(measured, key)).toFixed(1)} | ${spread(valuesOf(measured, key), 1)}`;
const verdict = (seconds: number): string =>
  `${seconds.toFixed(1)} s, ${seconds <= budget ? 'met' : 'missed'}`;

function describeStarts(runs: readonly Measured[], starts: number): string {
  const first = valuesOf(runs[0]!.measured, 'answer');
  const columns = ['kernel', 'initramfs', 'started', 'answer', 'cpu'] as const;
  return [
    `${starts} starts of each image, in turn; emulated Cortex-A53 with 128 MB; ${machine()}. Seconds from power-on: median, and least to most.`,
    '',
    '| Image | kernel | | initramfs | | gateway started | | answer from outside | | CPU of the emulation until then | |',
    '|---|---|---|---|---|---|---|---|---|---|---|',
    ...runs.map(
      ({ name, measured }) => `| ${name} | ${columns.map((key) => column(measured, key)).join(' | ')} |`,
    ),
    '',
    `- Ready at most ${budget} s after power-on: median ${verdict(median(first))}; best ${verdict(Math.min(...first))}.`,
  ].join('\n');
}

const middle = ({ name, measured }: Measured): ChartedStart => ({
  name,
  kernel: median(valuesOf(measured, 'kernel')),
  initramfs: median(valuesOf(measured, 'initramfs')),
  answer: median(valuesOf(measured, 'answer')),
});

await runCommand({
  help,
  options: {
    image: { type: 'string', multiple: true, default: ['dist/firmware/qemu-arm64'] },
    starts: { type: 'string', default: '5' },
    write: { type: 'boolean', default: false },
  },
  run: async ({ image, starts: given, write }) => {
    const starts = Number(given);
    if (!Number.isInteger(starts) || starts < 1)
      throw new UsageError(`--starts: a whole number of at least 1 is wanted, not '${given}'`);
    const runs = await measureInTurn(image, starts);
    const section = describeStarts(runs, starts);
    console.log(section);
    if (!write) return;
    writeSection('board', section, 'firmware.md');
    const picture = join(import.meta.dirname, '../../docs/board-start.svg');
    writeFileSync(picture, startChart(runs.map(middle), budget));
  },
});
