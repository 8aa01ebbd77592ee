// `npm run bench:board`: seconds from power-on of an emulated board to the first answer to a CoAP request from outside.
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { basename, resolve } from 'node:path';
import { publish } from '../../build/figure-pages.ts';
import { measured as figureOf, type Run, today } from '../../build/figures.ts';
import { virt } from '../../firmware-image/qemu/hardware.ts';
import { runCommand, UsageError } from '../../firmware-image/recipe/command.ts';
import { encodeEmpty, Type } from '../../src/wire/coap/codec.ts';
import { Board } from '../firmware/board.ts';
import { imageIn } from '../firmware/images.ts';
import { cpuSeconds, machine } from './measure.ts';

const help = `npm run bench:board -- [OPTIONS]

Flashes an image onto an emulated board, boots it once so that the data partition exists, and then measures starts.

  --image FOLDER  output folder of \`npm run image\`; dist/firmware/qemu-arm64 by default. Repeat the option to compare images:
                  they are started in turn, since the speed of a shared machine changes from minute to minute
  --starts N      starts of each image; 5 by default
  --write         records the figures of the first image, for docs/firmware.md and docs/board-start.svg
`;
/** Seconds that a start may take. */
const budget = 10;
/** Milliseconds between two pings. */
const between = 50;

/** An empty confirmable message. Every CoAP endpoint answers it with a reset. [RFC 7252, 4.3] */
const ping = encodeEmpty(Type.CON, 1);

interface Start {
  /** Seconds from power-on. */
  readonly kernel: number;
  readonly initramfs: number;
  readonly started: number;
  readonly answer: number;
  /** CPU seconds of the emulation until the answer. */
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
  // The initramfs arms the watchdog as its last step and closes it again. The kernel then logs the second of these lines.
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
  const { disk, trust } = imageIn(folder);
  const board = await Board.flash({ disk, hardware: virt({ trust }) });
  await board.start();
  await board.machine.cutPower();
  return board;
}

interface Measured {
  readonly name: string;
  readonly measured: readonly Start[];
}

/** Flashes one board with each image, and starts the boards in turn. */
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

const steps = {
  answer: 'From power-on to the first answer to a CoAP request from outside',
  kernel: "From power-on to the kernel's start",
  initramfs: 'From power-on to the end of the initramfs',
  started: "From power-on to the gateway's start",
  cpu: 'CPU of the emulation until the answer',
} as const satisfies Record<keyof Start, string>;

function runOf({ name, measured }: Measured): Run {
  const figures = Object.entries(steps).map(([key, what]) => {
    const values = measured.map((start) => start[key as keyof Start]);
    return [key, figureOf(what, 's', values, key === 'answer' ? { atMost: budget } : {})] as const;
  });
  return {
    title: 'Start of a board',
    date: today(),
    machine: machine(),
    how: `\`npm run bench:board\`: ${measured.length} starts of the image ${name} on an emulated Cortex-A53 with 128 MB.`,
    figures: Object.fromEntries(figures),
  };
}

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
    for (const [index, measured] of (await measureInTurn(image, starts)).entries())
      publish('board', runOf(measured), write && index === 0);
  },
});
