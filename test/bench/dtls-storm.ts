import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Association } from '../../src/wire/secure/dtls/association.ts';
import { freePort } from '../peers/foreign.ts';
import { BenchClient, key } from './dtls-client.ts';
import { writeGatewayFile } from './gateway-file.ts';
import { cpuSeconds, residentMegabytes } from './measure.ts';

/** What it takes until each of many devices has an answer. */
export interface Storm {
  readonly seconds: number;
  /** Of the gateway's process, without its start. */
  readonly cpuSeconds: number;
  readonly megabytes: number;
}

const bundle = fileURLToPath(new URL('../../dist/postern.mjs', import.meta.url));

async function started(file: string): Promise<ChildProcess> {
  const gateway = spawn(process.execPath, [bundle, 'gateway', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  createInterface(gateway.stdout).on('line', (line) => {
    if (line.includes('"gateway.started"')) resolve();
  });
  await promise;
  return gateway;
}

async function ended(gateway: ChildProcess): Promise<void> {
  const exit = once(gateway, 'exit');
  gateway.kill('SIGKILL');
  await exit;
}

async function measured(gateway: ChildProcess, work: () => Promise<unknown>): Promise<Storm> {
  const cpu = cpuSeconds(gateway);
  const began = performance.now();
  await work();
  const seconds = (performance.now() - began) / 1000;
  return { seconds, cpuSeconds: cpuSeconds(gateway) - cpu, megabytes: residentMegabytes(gateway) };
}

/** Devices at addresses of their own, and the configuration of a gateway that has their keys. */
interface Crowd extends AsyncDisposable {
  readonly file: string;
  /** Shakes hands with each device, as many at a time, and lets it ask for something. */
  enter(atOnce: number): Promise<void>;
  /** Each device asks for something, all at once, in the association that it has. */
  ask(): Promise<unknown>;
}

async function crowdOf(count: number): Promise<Crowd> {
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'postern-storm-'));
  stack.defer(() => rmSync(folder, { recursive: true }));
  const port = await freePort();
  const identities = Array.from({ length: count }, (_, at) => `urn:dev:bench:${at}`);
  const keys = identities.map((identity) => `[[coaps.device]]\nidentity = "${identity}"\nkey = "${key}"\n`);
  const file = writeGatewayFile(folder, 'mqtt://127.0.0.1:1', `[coaps]\nport = ${port}\n${keys.join('')}`);
  const devices: BenchClient[] = [];
  for (const at of identities.keys())
    devices.push(
      stack.use(
        await BenchClient.open(port, '127.0.0.1', `127.70.${at >> 8}.${at & 255}`, { wantsCid: true }),
      ),
    );
  const associations: Association[] = [];
  const enter = async (at: number) => {
    const association = await devices[at]!.connect(identities[at]);
    associations[at] = association;
    await devices[at]!.load(association, 1, 1);
  };
  const parts = stack.move();
  return {
    file,
    enter: async (atOnce) => {
      for (let from = 0; from < count; from += atOnce)
        await Promise.all(devices.slice(from, from + atOnce).map((_, at) => enter(from + at)));
    },
    ask: () => Promise.all(devices.map((device, at) => device.load(associations[at]!, 1, 1))),
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

/** Milliseconds after which the gateway has stored new associations. It does so after 5 s. */
const stored = 6000;

/**
 * Devices come to a gateway (the bundle, on loopback), so many at a time: all shake hands and ask for something. Then the gateway is
 * killed and started again, and all ask at once in the associations that it has kept.
 */
export async function storms(
  count: number,
  atOnce = count,
): Promise<{ readonly handshakes: Storm; readonly kept: Storm }> {
  await using crowd = await crowdOf(count);
  const first = await started(crowd.file);
  const handshakes = await measured(first, () => crowd.enter(atOnce));
  await pause(stored);
  await ended(first);
  const second = await started(crowd.file);
  const kept = await measured(second, () => crowd.ask());
  await ended(second);
  return { handshakes, kept };
}
