// `npm run bench:coap`: server CPU per confirmable GET of Postern, the `coap` package, libcoap and a bare echo, and the CPU of
// Postern's layer without a socket. One load generator keeps 64 requests outstanding over loopback. The servers take turns within
// each round, so ratios compare like with like. `--quick` measures briefly; `--write` records the figures.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { type Figure, measured, single, today } from '../../build/figures.ts';
import { measuring, optionsOf } from '../options.ts';
import { cpuSeconds, machine, ratios, residentMegabytes } from './measure.ts';

const flags = optionsOf(
  'bench:coap',
  'Server CPU per confirmable GET of Postern, the coap package, libcoap and a bare echo.',
  measuring,
);
const rounds = flags.quick ? 2 : 11;
const perRound = flags.quick ? 20_000 : 100_000;
const soakExchanges = flags.quick ? 100_000 : 1_000_000;
const outstanding = 64;

interface Server {
  readonly name: string;
  readonly child: ChildProcess;
  readonly port: number;
  /** CPU in µs per request, of each round. */
  readonly cpu: number[];
  /** Requests per second, of each round. */
  readonly rate: number[];
}

async function startNode(name: string, kind: string): Promise<Server> {
  const script = fileURLToPath(new URL('coap-servers.ts', import.meta.url));
  const child = spawn(process.execPath, [script, kind], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = await once(createInterface(child.stdout!), 'line');
  return { name, child, port: Number(port), cpu: [], rate: [] };
}

async function startLibcoap(): Promise<Server> {
  const port = 20_000 + (process.pid % 20_000);
  const child = spawn('coap-server-notls', ['-A', '127.0.0.1', '-p', String(port)], { stdio: 'ignore' });
  await once(child, 'spawn');
  return { name: 'libcoap', child, port, cpu: [], rate: [] };
}

const cpuMicroseconds = ({ child }: Server): number => cpuSeconds(child) * 1e6;

/** CON GET /time with this message ID. The token ends with the message ID as well. */
function request(id: number): Buffer {
  const datagram = Buffer.from([0x44, 0x01, 0, 0, 0x70, 0x73, 0, 0, 0xb4, 0x74, 0x69, 0x6d, 0x65]);
  datagram.writeUInt16BE(id & 0xffff, 2);
  datagram.writeUInt16BE(id & 0xffff, 6);
  return datagram;
}

let nextId = 1;

/** Sends `count` requests, 64 outstanding. Returns the seconds taken. A lost datagram is sent again after a second. */
async function load(port: number, count: number): Promise<number> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 });
  const waiting = new Map<number, Buffer>();
  let sent = 0;
  let answered = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const send = () => {
    const id = nextId++ & 0xffff;
    const datagram = request(id);
    waiting.set(id, datagram);
    sent++;
    socket.send(datagram, port, '127.0.0.1');
  };
  socket.on('message', (datagram) => {
    if (!waiting.delete(datagram.readUInt16BE(2))) return;
    answered++;
    if (sent < count) send();
    else if (answered === count) resolve();
  });
  const again = setInterval(() => {
    for (const datagram of waiting.values()) socket.send(datagram, port, '127.0.0.1');
  }, 1000);
  const began = performance.now();
  for (let i = 0; i < outstanding; i++) send();
  await promise;
  clearInterval(again);
  socket.close();
  return (performance.now() - began) / 1000;
}

const servers = {
  postern: await startNode('Postern', 'postern'),
  package: await startNode('`coap` package', 'coap'),
  libcoap: await startLibcoap(),
  echo: await startNode('bare `node:dgram` echo', 'echo'),
  literal: await startNode('the same echo, addresses not looked up', 'literal'),
};
/** Of this one only the memory is measured: V8 would let it grow to any size that it finds fast. */
const bounded = await startNode('Postern, bounded', 'gateway');
/** CPU in µs per request of the layer without a socket, of each round. */
const layer: number[] = [];
const layerScript = fileURLToPath(new URL('coap-layer.ts', import.meta.url));
try {
  for (const { port } of Object.values(servers)) await load(port, 5000);
  for (let round = 1; round <= rounds; round++) {
    for (const server of Object.values(servers)) {
      const before = cpuMicroseconds(server);
      const seconds = await load(server.port, perRound);
      server.cpu.push((cpuMicroseconds(server) - before) / perRound);
      server.rate.push(perRound / seconds);
    }
    layer.push(Number(execFileSync(process.execPath, [layerScript, String(perRound)], { encoding: 'utf8' })));
    console.error(`round ${round} of ${rounds}`);
  }
  const { postern, ...peers } = servers;
  // As many as the others have had, and more: V8 compiles and sizes its heap meanwhile.
  await load(bounded.port, soakExchanges);
  const before = residentMegabytes(bounded.child);
  await load(bounded.port, soakExchanges);
  const growth = residentMegabytes(bounded.child) - before;

  const against = ({ name, cpu }: Server, target = {}) =>
    measured(`Server CPU per request, Postern / ${name}`, 'times', ratios(postern.cpu, cpu), target);
  const perServer = (prefix: string, figure: (server: Server) => Figure) =>
    Object.fromEntries(Object.entries(servers).map(([key, server]) => [`${prefix}-${key}`, figure(server)]));
  publish(
    'coap',
    {
      title: 'CoAP',
      date: today(),
      machine: machine(),
      how: `\`npm run bench:coap\`: ${rounds} interleaved rounds of ${perRound.toLocaleString('en')} confirmable GETs for each server, ${outstanding} outstanding, one load generator, loopback.`,
      figures: {
        'vs-package': against(peers.package, { atMost: 0.35 }),
        'vs-libcoap': against(peers.libcoap, { atMost: 1.1 }),
        'vs-echo': against(peers.echo, { atMost: 1.15 }),
        ...perServer('cpu', ({ name, cpu }) => measured(`Server CPU per request, ${name}`, 'µs', cpu)),
        layer: measured("CPU per request of Postern's layer alone, without a socket", 'µs', layer),
        growth: single(
          `Growth of Postern's memory (RSS) over ${soakExchanges.toLocaleString('en')} further exchanges, bounded as a gateway`,
          'MB',
          growth,
          { atMost: 8 },
        ),
        ...perServer('rate', ({ name, rate }) => measured(`Throughput, ${name}`, 'requests/s', rate)),
      },
    },
    flags.write,
  );
} finally {
  for (const { child } of [...Object.values(servers), bounded]) child.kill();
}
