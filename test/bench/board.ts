// `npm run bench:board`: from power-on of an emulated board to the first answer to a CoAP request from outside.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { virt } from '../../firmware-image/qemu/hardware.ts';
import { Board } from '../firmware/board.ts';
import { machine, median, spread, writeSection } from './report.ts';
import { startChart } from './start-chart.ts';

const help = `npm run bench:board -- [OPTIONS]

Flashes an image onto emulated boards, boots it once so that it has what it needs, and then measures starts.

  --image FOLDER  what \`npm run image\` left there; dist/firmware/qemu-arm64 by default. Given more than once, the images are
                  started in turn, which is the only fair way on a machine that others use as well
  --starts N      of each image, 5 by default
  --write         puts the result into docs/firmware.md, and its picture, docs/board-start.svg
`;
const { values: flags } = parseArgs({
  options: {
    image: { type: 'string', multiple: true, default: ['dist/firmware/qemu-arm64'] },
    starts: { type: 'string', default: '5' },
    write: { type: 'boolean' },
    help: { type: 'boolean' },
  },
});
if (flags.help) {
  console.log(help);
  process.exit();
}
const starts = Number(flags.starts);
if (!Number.isInteger(starts) || starts < 1) {
  console.error(`--starts: a whole number of at least 1 is wanted, not '${flags.starts}'`);
  process.exit(2);
}
const ticks = 100;
/** Seconds that a start may take. */
const budget = 10;
/** Milliseconds between two pings. */
const between = 50;

/** An empty confirmable message, which everybody who speaks CoAP answers with a reset. [RFC 7252, 4.3] */
const ping = Buffer.from([0x40, 0, 0, 1]);

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
  const fields = readFileSync(`/proc/${board.machine.processId}/stat`, 'utf8').split(') ')[1]!.split(' ');
  const cpu = (Number(fields[11]) + Number(fields[12])) / ticks;
  const [kernel, initramfs, started] = await Promise.all(steps);
  await board.machine.cutPower();
  return { kernel: kernel!, initramfs: initramfs!, started: started!, answer, cpu };
}

async function flashed(folder: string): Promise<Board> {
  const disk = existsSync(folder) && readdirSync(folder).find((name) => /^postern-.*\.img$/.test(name));
  if (!disk) {
    console.error(`${folder} has no disk image: npm run image`);
    process.exit(1);
  }
  const board = await Board.flash({
    disk: join(folder, disk),
    hardware: virt({ trust: join(folder, 'trust.dts') }),
    brokerUrl: 'mqtt://127.0.0.1:1',
    devices: [],
  });
  await board.start();
  await board.machine.cutPower();
  return board;
}

await using boards = new AsyncDisposableStack();
const runs: { name: string; board: Board; measured: Start[] }[] = [];
for (const folder of flags.image.map((one) => resolve(one)))
  runs.push({ name: basename(folder), board: boards.use(await flashed(folder)), measured: [] });
for (let round = 0; round < starts; round++)
  for (const { name, board, measured } of runs) {
    const start = await measure(board);
    measured.push(start);
    console.error(
      `${name}, start ${round + 1} of ${starts}: ${start.answer.toFixed(1)} s, ${start.cpu.toFixed(1)} s of CPU`,
    );
  }
const column = (measured: readonly Start[], key: keyof Start) => {
  const values = measured.map((one) => one[key]);
  return `${median(values).toFixed(1)} | ${spread(values, 1)}`;
};
const first = runs[0]!.measured.map(({ answer }) => answer);
const verdict = (seconds: number) => (seconds <= budget ? 'met' : 'missed');
const section = [
  `${starts} starts of each image, in turn; emulated Cortex-A53 with 128 MB; ${machine()}. Seconds from power-on: median, and least to most.`,
  '',
  '| Image | kernel | | initramfs | | gateway started | | answer from outside | | CPU of the emulation until then | |',
  '|---|---|---|---|---|---|---|---|---|---|---|',
  ...runs.map(
    ({ name, measured }) =>
      `| ${name} | ${(['kernel', 'initramfs', 'started', 'answer', 'cpu'] as const).map((key) => column(measured, key)).join(' | ')} |`,
  ),
  '',
  `- Ready at most ${budget} s after power-on: median ${median(first).toFixed(1)} s, ${verdict(median(first))}; best ${Math.min(...first).toFixed(1)} s, ${verdict(Math.min(...first))}.`,
].join('\n');
console.log(section);
if (flags.write) {
  writeSection('board', section, 'firmware.md');
  const medianOf = (measured: readonly Start[], key: keyof Start) => median(measured.map((one) => one[key]));
  const charted = runs.map(({ name, measured }) => ({
    name,
    kernel: medianOf(measured, 'kernel'),
    initramfs: medianOf(measured, 'initramfs'),
    answer: medianOf(measured, 'answer'),
  }));
  writeFileSync(join(import.meta.dirname, '../../docs/board-start.svg'), startChart(charted, budget));
}
