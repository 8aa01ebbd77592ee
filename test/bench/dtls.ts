// `npm run bench:dtls`: server CPU per protected confirmable GET and per handshake, of Postern and of libcoap with OpenSSL, and the
// memory of an idle association; then many devices that come to a gateway at once, with and without kept associations. One load
// generator keeps 64 requests outstanding over loopback. The servers take turns within each round, so ratios compare like with like. `--quick` measures briefly; `--write` records the figures.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { publish } from '../../build/figure-pages.ts';
import { measured, single, today, type Unit } from '../../build/figures.ts';
import { measuring, optionsOf } from '../options.ts';
import { benchFiles, makeBenchCertificates } from './dtls-certificates.ts';
import { BenchClient, key } from './dtls-client.ts';
import { idleAssociationBytes } from './dtls-memory.ts';
import { type Storm, storms } from './dtls-storm.ts';
import { cpuSeconds, machine, ratios } from './measure.ts';

const flags = optionsOf(
  'bench:dtls',
  'Server CPU per protected request and per handshake, Postern and libcoap with OpenSSL; memory of an association.',
  measuring,
);
const rounds = flags.quick ? 3 : 5;
const perRound = flags.quick ? 10_000 : 50_000;
const handshakesPerRound = flags.quick ? 300 : 1000;
const certifiedPerRound = flags.quick ? 100 : 500;
const idle = 10_000;
/** Devices that come at once. */
const crowd = flags.quick ? 200 : 1000;
/** Devices that have kept their associations, and how many of them shake hands at a time before. */
const fleet = flags.quick ? 1000 : 5000;
const fleetAtOnce = 100;

interface Server {
  readonly name: string;
  readonly child: ChildProcess;
  readonly port: number;
  /** CPU in µs per request and per handshake, requests and handshakes per second; of each round. */
  readonly cpu: number[];
  readonly handshakeCpu: number[];
  /** CPU in µs per handshake with certificates at both ends. */
  readonly certifiedCpu: number[];
  readonly rate: number[];
  readonly handshakeRate: number[];
}

const serverOf = (name: string, child: ChildProcess, port: number): Server => ({
  name,
  child,
  port,
  cpu: [],
  handshakeCpu: [],
  certifiedCpu: [],
  rate: [],
  handshakeRate: [],
});

async function startPostern(): Promise<Server> {
  const script = fileURLToPath(new URL('dtls-server.ts', import.meta.url));
  const child = spawn(process.execPath, [script, folder], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = await once(createInterface(child.stdout!), 'line');
  return serverOf('Postern', child, Number(port));
}

async function startLibcoap(): Promise<Server> {
  const port = 20_000 + (process.pid % 20_000);
  const args = ['-A', '127.0.0.1', '-p', String(port), '-k', `${key}`];
  const { certificate, key: keyFile, authority } = benchFiles(folder);
  args.push('-c', certificate, '-j', keyFile, '-C', authority);
  const child = spawn('coap-server-openssl', args, { stdio: 'ignore' });
  await once(child, 'spawn');
  return serverOf('libcoap with OpenSSL', child, port + 1);
}

async function measure(server: Server): Promise<void> {
  await using client = await BenchClient.open(server.port);
  const association = await client.connect();
  await client.load(association, server.cpu.length === 0 ? 20_000 : 1000, 64);
  const before = cpuSeconds(server.child);
  const seconds = await client.load(association, perRound, 64);
  server.cpu.push(((cpuSeconds(server.child) - before) * 1e6) / perRound);
  server.rate.push(perRound / seconds);
  // libcoap takes no new handshake from the address of a session.
  client.close(association);
  const cpu = cpuSeconds(server.child);
  const began = performance.now();
  for (let each = 0; each < handshakesPerRound; each++) client.close(await client.connect());
  const took = (performance.now() - began) / 1000;
  server.handshakeCpu.push(((cpuSeconds(server.child) - cpu) * 1e6) / handshakesPerRound);
  server.handshakeRate.push(handshakesPerRound / took);
  const cpuOfPsk = cpuSeconds(server.child);
  for (let each = 0; each < certifiedPerRound; each++)
    client.close(await client.connectCertified(clientCertificates));
  server.certifiedCpu.push(((cpuSeconds(server.child) - cpuOfPsk) * 1e6) / certifiedPerRound);
}

const folder = mkdtempSync(join(tmpdir(), 'postern-bench-'));
const clientCertificates = makeBenchCertificates(folder);
const servers = [await startPostern(), await startLibcoap()] as const;
try {
  for (let round = 1; round <= rounds; round++) {
    for (const server of servers) await measure(server);
    console.error(`round ${round} of ${rounds}`);
  }
  const [postern, libcoap] = servers;
  const { handshakes, kept } = await storms(crowd);
  const { kept: fleetKept } = await storms(fleet, fleetAtOnce);
  const ofStorm = (name: string, what: string, { seconds, cpuSeconds: cpu, megabytes }: Storm) => ({
    [`${name}-time`]: single(`${what}: time until each has an answer`, 's', seconds),
    [`${name}-cpu`]: single(`${what}: CPU of the gateway`, 's', cpu),
    [`${name}-memory`]: single(`${what}: memory (RSS) of the gateway afterwards`, 'MB', megabytes),
  });
  const ofBoth = (name: string, what: string, unit: Unit, values: (server: Server) => number[]) => ({
    [`${name}-postern`]: measured(`${what}, ${postern.name}`, unit, values(postern)),
    [`${name}-libcoap`]: measured(`${what}, ${libcoap.name}`, unit, values(libcoap)),
  });
  publish(
    'dtls',
    {
      title: 'CoAP over DTLS',
      date: today(),
      machine: machine(),
      how: `\`npm run bench:dtls\`: ${rounds} interleaved rounds of ${perRound.toLocaleString('en')} confirmable GETs and ${handshakesPerRound.toLocaleString('en')} handshakes for each server, TLS_PSK_WITH_AES_128_CCM_8, and ${certifiedPerRound.toLocaleString('en')} handshakes of TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8, loopback. The handshakes come one after the other, each with a close.`,
      figures: {
        'vs-libcoap': measured(
          'Server CPU per protected request, Postern / libcoap with OpenSSL',
          'times',
          ratios(postern.cpu, libcoap.cpu),
          { atMost: 2 },
        ),
        'handshake-vs-libcoap': measured(
          'Server CPU per handshake, Postern / libcoap with OpenSSL',
          'times',
          ratios(postern.handshakeCpu, libcoap.handshakeCpu),
        ),
        'certified-vs-libcoap': measured(
          'Server CPU per handshake with certificates at both ends, Postern / libcoap with OpenSSL',
          'times',
          ratios(postern.certifiedCpu, libcoap.certifiedCpu),
        ),
        ...ofBoth('cpu', 'Server CPU per protected request', 'µs', ({ cpu }) => cpu),
        ...ofBoth('handshake-cpu', 'Server CPU per handshake', 'µs', ({ handshakeCpu }) => handshakeCpu),
        ...ofBoth(
          'certified-cpu',
          'Server CPU per handshake with certificates at both ends',
          'µs',
          ({ certifiedCpu }) => certifiedCpu,
        ),
        'per-core': measured(
          `Protected requests per second of CPU, ${postern.name}`,
          'requests/s',
          postern.cpu.map((microseconds) => 1e6 / microseconds),
          { atLeast: 30_000 },
        ),
        ...ofBoth('rate', 'Throughput', 'requests/s', ({ rate }) => rate),
        ...ofBoth(
          'handshake-rate',
          'Handshakes of one client',
          'handshakes/s',
          (server) => server.handshakeRate,
        ),
        ...ofStorm('storm', `${crowd.toLocaleString('en')} devices that shake hands at once`, handshakes),
        ...ofStorm('kept', 'The same devices after kill -9 of the gateway, in kept associations', kept),
        ...ofStorm(
          'fleet',
          `${fleet.toLocaleString('en')} devices after kill -9 of the gateway, in kept associations`,
          fleetKept,
        ),
        idle: measured(
          `Memory (RSS) of an idle association with a session, at ${idle.toLocaleString('en')}`,
          'KB',
          Array.from({ length: 3 }, () => idleAssociationBytes(idle) / 1000),
          { atMost: 1.5 },
        ),
      },
    },
    flags.write,
  );
} finally {
  for (const { child } of servers) child.kill();
  rmSync(folder, { recursive: true });
}
