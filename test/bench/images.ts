// `npm run bench:images`: many devices get one image over CoAP Block2, from a server process with the image on disk.
import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { cpuSeconds, machine, median, spread, writeSection } from './report.ts';

const { values: flags } = parseArgs({ options: { quick: { type: 'boolean' }, write: { type: 'boolean' } } });
const rounds = flags.quick ? 1 : 3;
const imageBytes = 1024 * 1024;
const blockBytes = 1024;
const blocks = imageBytes / blockBytes;
const devices = [1, 200];

const child = spawn(
  process.execPath,
  [fileURLToPath(new URL('image-server.ts', import.meta.url)), String(imageBytes)],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
const [port] = await once(createInterface(child.stdout!), 'line');

const rss = (): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) / 1024;

/** One device: a block after the other, as a constrained one does; a lost datagram is sent again after a second. */
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

try {
  await fetchImage();
  const rows: string[] = [];
  let growth = 0;
  for (const count of devices) {
    const rate: number[] = [];
    const cpu: number[] = [];
    const before = rss();
    for (let round = 0; round < rounds; round++) {
      const used = cpuSeconds(child);
      const began = performance.now();
      await Promise.all(Array.from({ length: count }, fetchImage));
      rate.push((count * imageBytes) / 1e6 / ((performance.now() - began) / 1000));
      cpu.push(((cpuSeconds(child) - used) * 1e6) / (count * blocks));
      console.error(`${count} devices, round ${round + 1} of ${rounds}`);
    }
    growth = rss() - before;
    rows.push(
      `| ${count} | ${median(cpu).toFixed(1)} | ${spread(cpu, 1)} | ${median(rate).toFixed(1)} | ${spread(rate, 1)} | ${growth.toFixed(1)} |`,
    );
  }
  const section = [
    `An image of 1 MiB in blocks of 1024 bytes, each asked for when the one before it has come; ${rounds} rounds, one process for all devices; ${machine()}.`,
    '',
    '| Devices at once | server CPU µs/block | min to max | MB/s in all | min to max | RSS growth, MB |',
    '|---|---|---|---|---|---|',
    ...rows,
    '',
    `- 200 devices at once from one file with bounded memory: ${growth.toFixed(1)} MB more while they load 200 MiB, ${growth < 16 ? 'met (under 16)' : 'missed (16)'}.`,
  ].join('\n');
  console.log(section);
  if (flags.write) writeSection('images', section);
} finally {
  child.kill();
}
