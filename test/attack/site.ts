import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Headend } from '../../src/headend/headend.ts';
import { deviceId } from '../bench/crowd.ts';
import { key } from '../bench/dtls-client.ts';
import { Counter, startHeadend } from '../bench/fleet.ts';
import { factoryDevices, writeGatewayFile } from '../bench/gateway-file.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { freePort as freeUdpPort } from '../peers/foreign.ts';
import type { Target } from './attacks.ts';
import { type Deed, isLwm2m, protectedDevices } from './deed.ts';

/** The image from which all devices update during each attack, and its bytes. */
export const image = 'firmware';
const imageBytes = 20_000;

/** A port of TCP that is free now. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

const program = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** A gateway (the bundle) with honest devices at work. The DM server is in this process. */
export interface AttackedSite extends AsyncDisposable {
  readonly target: Target;
  readonly gateway: ChildProcess;
  readonly headend: Headend;
  readonly heard: Counter;
  /** Bytes that the gateway has logged. */
  logged(): number;
  /** What the honest devices did since the last call. */
  deeds(): Deed[];
  /** Starts an attack. Resolves with what ends it. */
  attack(name: string, seed: number): AsyncDisposable;
}

export async function attackedSite(devices: number, seed: number): Promise<AttackedSite> {
  const folder = mkdtempSync(join(tmpdir(), 'postern-attack-'));
  const broker = await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']);
  const heard = new Counter();
  const headend = await startHeadend(broker.url, heard);
  const ids = Array.from({ length: devices }, (_, at) => deviceId(at));
  const http = await freePort();
  const coaps = await freeUdpPort();
  const secure = protectedDevices(devices).map(
    (identity) => `[[coaps.device]]\nidentity = "${identity}"\nkey = "${key}"\n`,
  );
  const clients = ids.filter((_, at) => isLwm2m(at)).map((id) => `[[lwm2m.device]]\nid = "${id}"\n`);
  const file = writeGatewayFile(
    folder,
    broker.url,
    `[lwm2m]
insecure-no-security = true
${clients.join('')}[coaps]
port = ${coaps}
${secure.join('')}[http]
host = "127.0.0.1"
port = ${http}
${factoryDevices(ids.filter((_, at) => !isLwm2m(at)))}`,
  );
  const gateway = spawn(process.execPath, [program('../../dist/postern.mjs'), 'gateway', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let logged = 0;
  const started = Promise.withResolvers<number>();
  gateway.once('exit', (code) => started.reject(new Error(`the gateway ended with ${code}`)));
  createInterface(gateway.stdout).on('line', (line) => {
    logged += line.length + 1;
    if (line.includes('"gateway.started"')) started.resolve((JSON.parse(line) as { port: number }).port);
  });
  const coap = await started.promise;
  const target = { coap, coaps, http, broker: broker.url, devices };
  const crowd = spawn(
    process.execPath,
    [program('honest.ts'), `coap://127.0.0.1:${coap}`, String(devices), String(seed), String(coaps)],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const deeds: Deed[] = [];
  const attached = Promise.withResolvers<void>();
  createInterface(crowd.stdout).on('line', (line) => {
    if (line === 'ready') crowd.stdin.write('go\n');
    else if (line === 'attached') attached.resolve();
    else deeds.push(JSON.parse(line) as Deed);
  });
  await attached.promise;
  await headend.stageImage('gw-1', { name: image, data: randomBytes(imageBytes) });
  return {
    target,
    gateway,
    headend,
    heard,
    logged: () => logged,
    deeds: () => deeds.splice(0),
    attack: (name, number) => {
      const attacker = spawn(
        process.execPath,
        [program('attacks.ts'), name, JSON.stringify(target), String(number)],
        { stdio: ['ignore', 'inherit', 'inherit'] },
      );
      const ended = once(attacker, 'exit');
      return {
        [Symbol.asyncDispose]: async () => {
          if (attacker.exitCode !== null) throw new Error(`the attacker ended with ${attacker.exitCode}`);
          attacker.kill('SIGKILL');
          await ended;
        },
      };
    },
    [Symbol.asyncDispose]: async () => {
      crowd.kill('SIGKILL');
      const ended = once(gateway, 'exit');
      if (gateway.exitCode === null && gateway.signalCode === null) {
        gateway.kill();
        await ended;
      }
      await headend[Symbol.asyncDispose]();
      await broker[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true });
    },
  };
}
