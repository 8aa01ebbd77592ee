// A gateway whose clock begins in 1970, as a process under libfaketime: what is local works at once, and what needs the time works
// when the clock is set, without a restart.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, globSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { stringify } from 'smol-toml';
import { freePort, startMosquitto } from '../peers/brokers.ts';
import { selfSigned } from '../peers/certificates.ts';
import { Site, secrets } from './site.ts';

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const [library] = globSync('/usr/lib/*/faketime/libfaketimeMT.so.1');
const skip =
  library === undefined || spawnSync('which', ['mosquitto']).status !== 0
    ? 'needs libfaketime and mosquitto'
    : false;
const id = 'urn:dev:ops:1970';

test('at a clock of 1970 devices attach over DTLS; the broker is reached when the clock leaps to today', {
  skip,
  timeout: 120_000,
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-1970-'));
  t.after(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o755);
  const files = { key: join(folder, 'broker.key'), cert: join(folder, 'broker.pem') };
  selfSigned('broker', files, '-addext', 'subjectAltName=IP:127.0.0.1');
  chmodSync(files.key, 0o644);
  const port = await freePort();
  await using _broker = await startMosquitto([
    ...['allow_anonymous true', `listener ${port} 127.0.0.1`],
    ...[`certfile ${files.cert}`, `keyfile ${files.key}`],
  ]);
  const ports = { coap: await freePort(), coaps: await freePort() };
  const file = join(folder, 'gateway.toml');
  const config = {
    gateway: { id: 'gw-1', state: join(folder, 'state.db'), 'admin-socket': join(folder, 'admin.sock') },
    coap: { port: ports.coap, leisure: 50, interfaces: ['lo'], multicast: false },
    coaps: { port: ports.coaps },
    mqtt: { url: `mqtts://127.0.0.1:${port}`, ca: files.cert },
    'dm-server': {
      id: 'dm.example',
      'client-secret': secrets.gatewayClient,
      'server-secret': secrets.gatewayServer,
    },
    bootstrap: { device: [{ id, 'factory-secret': secrets.factory(id) }] },
  };
  writeFileSync(file, stringify(config), { mode: 0o600 });
  const clock = join(folder, 'clock');
  writeFileSync(clock, '@1970-01-01 00:00:05\n');
  const child = spawn(process.execPath, [main, 'gateway', '--config', file], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      LD_PRELOAD: library,
      FAKETIME_TIMESTAMP_FILE: clock,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
      TZ: 'UTC',
    },
  });
  t.after(() => child.kill('SIGKILL'));
  const lines: Record<string, unknown>[] = [];
  const waiting = new Set<() => void>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(JSON.parse(line));
    for (const look of waiting) look();
  });
  const event = async (name: string) => {
    const { promise, resolve } = Promise.withResolvers<Record<string, unknown>>();
    const look = () => {
      const found = lines.find((line) => line.event === name);
      if (found) resolve(found);
    };
    waiting.add(look);
    look();
    return await promise.finally(() => waiting.delete(look));
  };
  const started = await event('gateway.started');
  assert.match(String(started.time), /^1970-01-01T/);
  assert.match(String((await event('mqtt.connect-failed')).reason), /not yet valid/);
  await using site = new Site('mqtt://127.0.0.1:1');
  const device = site.device(
    id,
    { coapPort: ports.coap },
    {
      factory: true,
      top: { network: { gateway: `coaps://127.0.0.1:${ports.coaps}`, interface: '127.0.0.1' } },
    },
  );
  await device.start();
  await device.attached;
  assert.ok(!lines.some((line) => line.event === 'mqtt.connected'));
  // As NTP sets it. The file is replaced as a whole, since each look at the clock reads it.
  writeFileSync(`${clock}.new`, '+0\n');
  spawnSync('mv', [`${clock}.new`, clock]);
  const connected = await event('mqtt.connected');
  assert.equal(String(connected.time).slice(0, 4), String(new Date().getUTCFullYear()));
  assert.ok(existsSync(join(folder, 'state.db')));
  child.kill('SIGTERM');
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
});
