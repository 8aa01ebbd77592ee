// `npm run bench:images`: many devices load one image over CoAP Block2. The server is a process of its own, with the image on
// disk. `--quick` measures briefly; `--write` records the figures.
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { type Figure, measured, single, today } from '../../build/figures.ts';
import { measuring, optionsOf } from '../options.ts';
import { cpuSeconds, machine, ratios, residentMegabytes } from './measure.ts';

const flags = optionsOf('bench:images', 'Many devices load one image over CoAP.', measuring);
const rounds = flags.quick ? 1 : 3;
const imageBytes = 1024 * 1024;
const blockBytes = 1024;
const blocks = imageBytes / blockBytes;
const [alone, together] = [1, 200] as const;

const child = spawn(
  process.execPath,
  [fileURLToPath(new URL('image-server.ts', import.meta.url)), String(imageBytes)],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
const [port] = await once(createInterface(child.stdout!), 'line');

/** One device. It asks for one block at a time, as constrained devices do. A lost datagram is sent again after a second. */
async function fetchImage(): Promise<void> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 16 });
  const { promise, resolve } = Promise.withResolvers<void>();
  let block = 0;
  const send = () => {
    const szx = 6;
    const value = block * 16 + szx;
    const option =
      value < 256
        ? [0xc1, value]
        : value < 65_536
          ? [0xc2, value >> 8, value & 255]
          : [0xc3, value >> 16, (value >> 8) & 255, value & 255];
    // CON GET /img/x, token of two bytes, Block2 (23 is 12 after Uri-Path, 11).
    const head = [0x42, 0x01, block >> 8, block & 255, block >> 8, block & 255];
    socket.send(
      Buffer.from([...head, 0xb3, 0x69, 0x6d, 0x67, 0x01, 0x78, ...option]),
      Number(port),
      '127.0.0.1',
    );
  };
  const again = setInterval(send, 1000);
  socket.on('message', (datagram) => {
    if (datagram.readUInt16BE(2) !== block) return;
    if (datagram[1] !== 0x45) throw new Error(`code ${datagram[1]?.toString(16)}`);
    if (++block === blocks) resolve();
    else send();
  });
  send();
  await promise;
  clearInterval(again);
  socket.close();
}

interface Load {
  /** CPU of the server in µs per block, of each round. */
  readonly cpu: number[];
  /** MB (10^6 bytes) per second that reach all devices, of each round. */
  readonly rate: number[];
  /** Growth of the server's memory over all rounds, in MB. */
  readonly growth: number;
}

async function measure(devices: number): Promise<Load> {
  const rate: number[] = [];
  const cpu: number[] = [];
  const before = residentMegabytes(child);
  for (let round = 1; round <= rounds; round++) {
    const used = cpuSeconds(child);
    const began = performance.now();
    await Promise.all(Array.from({ length: devices }, fetchImage));
    rate.push((devices * imageBytes) / 1e6 / ((performance.now() - began) / 1000));
    cpu.push(((cpuSeconds(child) - used) * 1e6) / (devices * blocks));
    console.error(`${devices} devices, round ${round} of ${rounds}`);
  }
  return { cpu, rate, growth: residentMegabytes(child) - before };
}

try {
  await fetchImage();
  const one = await measure(alone);
  const many = await measure(together);
  const figuresOf = ({ cpu, rate, growth }: Load, devices: number, target = {}): Record<string, Figure> => {
    const who = `${devices} ${devices === 1 ? 'device' : 'devices at once'}`;
    return {
      [`cpu-${devices}`]: measured(`Server CPU per block, ${who}`, 'µs', cpu),
      [`rate-${devices}`]: measured(`Throughput, ${who}`, 'MB/s', rate),
      [`growth-${devices}`]: single(`Growth of the server's memory (RSS), ${who}`, 'MB', growth, target),
    };
  };
  publish(
    'images',
    {
      title: 'Images',
      date: today(),
      machine: machine(),
      how: `\`npm run bench:images\`: an image of 1 MiB in blocks of ${blockBytes} bytes, ${rounds} rounds. Each device asks for a block when it has the one before. All devices are one process.`,
      figures: {
        'together-vs-alone': measured(
          `Server CPU per block, ${together} devices at once / ${alone} device`,
          'times',
          ratios(many.cpu, one.cpu),
        ),
        ...figuresOf(many, together, { atMost: 16 }),
        ...figuresOf(one, alone),
      },
    },
    flags.write,
  );
} finally {
  child.kill();
}
