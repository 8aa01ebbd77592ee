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

/**
 * Devices at addresses of their own come to a gateway (the bundle, on loopback) at once: all shake hands and ask for something. Then
 * the gateway is killed and started again, and all ask in the associations that it has kept.
 */
export async function storms(count: number): Promise<{ readonly handshakes: Storm; readonly kept: Storm }> {
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), 'postern-storm-'));
  stack.defer(() => rmSync(folder, { recursive: true }));
  const port = await freePort();
  const identities = Array.from({ length: count }, (_, at) => `urn:dev:bench:${at}`);
  const devices = identities.map(
    (identity) => `[[coaps.device]]\nidentity = "${identity}"\nkey = "${key}"\n`,
  );
  const file = writeGatewayFile(folder, 'mqtt://127.0.0.1:1', `[coaps]\nport = ${port}\n${devices.join('')}`);
  const clients: BenchClient[] = [];
  for (const [at] of identities.entries())
    clients.push(
      stack.use(
        await BenchClient.open(port, '127.0.0.1', `127.70.${at >> 8}.${at & 255}`, { wantsCid: true }),
      ),
    );
  const first = await started(file);
  const associations: Association[] = [];
  const handshakes = await measured(first, () =>
    Promise.all(
      clients.map(async (client, at) => {
        const association = await client.connect(identities[at]);
        associations[at] = association;
        await client.load(association, 1, 1);
      }),
    ),
  );
  // The gateway stores new associations after 5 s.
  await pause(6000);
  await ended(first);
  const second = await started(file);
  const kept = await measured(second, () =>
    Promise.all(clients.map((client, at) => client.load(associations[at]!, 1, 1))),
  );
  await ended(second);
  return { handshakes, kept };
}
