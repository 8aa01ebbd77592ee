import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startAedes } from '../peers/brokers.ts';

const program = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'postern-backup-'));
after(() => rmSync(folder, { recursive: true }));
const state = join(folder, 'state.db');
const backup = join(folder, 'backup.db');

const start = (...args: string[]) => {
  const child = spawn(process.execPath, [program, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, XDG_RUNTIME_DIR: folder },
  });
  after(() => child.kill('SIGKILL'));
  return child;
};

async function postern(...args: string[]) {
  const child = start(...args);
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => {
      said += text;
    });
  const [code] = await once(child, 'close');
  return { code, said };
}

test('a gateway is backed up while it runs, a second one refuses its state, and the backup is restored when it has stopped', {
  timeout: 60_000,
}, async () => {
  await using broker = await startAedes();
  const config = join(folder, 'gateway.toml');
  writeFileSync(
    config,
    `[gateway]
id = "gw-cli"
state = "${state}"
[coap]
port = 0
interfaces = ["lo"]
insecure-plain-coap = true
[mqtt]
url = "${broker.url}"
[dm-server]
id = "dm.example"
client-secret = "gateway-client-secret"
server-secret = "gateway-server-secret"
`,
  );
  const gateway = start('gateway', '--config', config);
  const lines = createInterface({ input: gateway.stdout });
  for await (const line of lines) if (line.includes('mqtt.connected')) break;
  while (!existsSync(join(folder, `postern-${process.getuid?.()}`, 'admin.sock')))
    await new Promise((resolve) => setImmediate(resolve));

  const second = await postern('gateway', '--config', config);
  assert.equal(second.code, 1);
  assert.match(second.said, new RegExp(`process ${gateway.pid} \\(.*main.ts gateway\\) serves it`));

  const made = await postern('backup', backup);
  assert.deepEqual([made.code, made.said], [0, `the state is copied to ${backup}\n`]);
  assert.equal(statSync(backup).mode & 0o777, 0o600);
  assert.match((await postern('backup', backup)).said, /exists already/);
  const direct = await postern('backup', `${backup}.direct`, '--state', state);
  assert.equal(direct.code, 0, direct.said);

  const early = await postern('restore', backup, '--state', state);
  assert.deepEqual([early.code, /uses it/.test(early.said)], [1, true], early.said);
  gateway.kill('SIGTERM');
  await once(gateway, 'exit');
  const restored = await postern('restore', backup, '--state', state);
  assert.deepEqual(
    [restored.code, restored.said],
    [0, `the state of the gateway is restored; the one before is ${state}.replaced-1\n`],
  );
  // The day on which a backup is needed: the key of the board is damaged.
  const good = await postern('backup', `${backup}.keyed`, '--with-key', '--state', state);
  assert.equal(good.code, 0, good.said);
  const key = readFileSync(`${state}.key`);
  writeFileSync(`${state}.key`, 'five!');
  writeFileSync(`${backup}.key`, 'of the backup');
  const wrong = await postern('restore', backup, '--state', state);
  assert.deepEqual(
    [wrong.code, /backup\.db\.key holds 13 bytes and no key/.test(wrong.said)],
    [1, true],
    wrong.said,
  );
  assert.equal(readFileSync(`${backup}.key`, 'utf8'), 'of the backup');
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.endsWith('.part')),
    [],
  );
  const healed = await postern('restore', `${backup}.keyed`, '--state', state);
  assert.equal(healed.code, 0, healed.said);
  assert.deepEqual(readFileSync(`${state}.key`), key);
  assert.equal(readFileSync(`${state}.key.replaced-1`, 'utf8'), 'five!');
  const nothing = await postern('restore', join(folder, 'gateway.toml'), '--state', state);
  assert.equal(nothing.code, 1);
  assert.ok(existsSync(state), 'a restore that is refused changes nothing');
});
