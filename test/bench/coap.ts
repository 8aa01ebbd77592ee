// `npm run bench:coap`: server CPU per confirmable GET, ours against the `coap` package, libcoap and a bare echo.
// One load generator, closed loop, 64 outstanding, loopback, rounds interleaved. `--quick` for a look, `--write` for the docs.
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { cpuSeconds, machine, median, spread, writeSection } from './report.ts';

const { values: flags } = parseArgs({ options: { quick: { type: 'boolean' }, write: { type: 'boolean' } } });
const rounds = flags.quick ? 2 : 5;
const perRound = flags.quick ? 20_000 : 100_000;
const soakExchanges = flags.quick ? 100_000 : 1_000_000;
const outstanding = 64;

interface Server {
  readonly name: string;
  readonly child: ChildProcess;
  readonly port: number;
}

async function startNode(name: string, kind: string): Promise<Server> {
  const script = fileURLToPath(new URL('coap-servers.ts', import.meta.url));
  const child = spawn(process.execPath, [script, kind], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = await once(createInterface(child.stdout!), 'line');
  return { name, child, port: Number(port) };
}

async function startLibcoap(): Promise<Server> {
  const port = 20_000 + (process.pid % 20_000);
  const child = spawn('coap-server-notls', ['-A', '127.0.0.1', '-p', String(port)], { stdio: 'ignore' });
  await once(child, 'spawn');
  return { name: 'libcoap coap-server', child, port };
}

const cpuMicroseconds = ({ child }: Server): number => cpuSeconds(child) * 1e6;

const rssMegabytes = ({ child }: Server): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))![1]) / 1024;

/** CON GET /time with this message ID, which is the token's end as well. */
function request(id: number): Buffer {
  const datagram = Buffer.from([0x44, 0x01, 0, 0, 0x70, 0x73, 0, 0, 0xb4, 0x74, 0x69, 0x6d, 0x65]);
  datagram.writeUInt16BE(id & 0xffff, 2);
  datagram.writeUInt16BE(id & 0xffff, 6);
  return datagram;
}

let nextId = 1;

/** Sends `count` requests, 64 outstanding; resolves with seconds taken. A lost datagram is sent again after a second. */
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

const servers = [
  await startNode('Postern', 'postern'),
  await startNode('`coap` package', 'coap'),
  await startLibcoap(),
  await startNode('bare `node:dgram` echo', 'echo'),
];
const cpu = new Map<string, number[]>(servers.map(({ name }) => [name, []]));
const rate = new Map<string, number[]>(servers.map(({ name }) => [name, []]));
try {
  for (const { port } of servers) await load(port, 5000);
  for (let round = 1; round <= rounds; round++) {
    for (const server of servers) {
      const before = cpuMicroseconds(server);
      const seconds = await load(server.port, perRound);
      cpu.get(server.name)!.push((cpuMicroseconds(server) - before) / perRound);
      rate.get(server.name)!.push(perRound / seconds);
    }
    console.error(`round ${round} of ${rounds}`);
  }
  const [ours] = servers as [Server];
  const rssBefore = rssMegabytes(ours);
  await load(ours.port, soakExchanges);
  const growth = rssMegabytes(ours) - rssBefore;

  const base = median(cpu.get('Postern')!);
  const rows = servers.map(({ name }) => {
    const own = cpu.get(name)!;
    return `| ${name} | ${median(own).toFixed(1)} | ${spread(own, 1)} | ${(base / median(own)).toFixed(2)} | ${Math.round(median(rate.get(name)!))} | ${spread(rate.get(name)!, 0)} |`;
  });
  const versusPackage = base / median(cpu.get('`coap` package')!);
  const versusLibcoap = base / median(cpu.get('libcoap coap-server')!);
  const verdict = (ok: boolean) => (ok ? 'met' : 'missed');
  const section = [
    `${rounds} interleaved rounds of ${perRound} confirmable GETs each, 64 outstanding, one generator, loopback; ${machine()}.`,
    '',
    '| Server | CPU µs/request | min to max | Postern / this | requests/s | min to max |',
    '|---|---|---|---|---|---|',
    ...rows,
    '',
    `- At most 0.35 times the \`coap\` package's CPU: ${versusPackage.toFixed(2)}, ${verdict(versusPackage <= 0.35)}.`,
    `- At most 1.1 times libcoap's CPU: ${versusLibcoap.toFixed(2)}, ${verdict(versusLibcoap <= 1.1)}.`,
    `- RSS growth under 8 MB over ${soakExchanges} further exchanges: ${growth.toFixed(1)} MB, ${verdict(growth < 8)}.`,
  ].join('\n');
  console.log(section);
  if (flags.write) writeSection('coap', section);
} finally {
  for (const { child } of servers) child.kill();
}
