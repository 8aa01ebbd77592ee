import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { noEvents } from '../../src/base/events.ts';
import { AdminApi } from '../../src/gateway/console/admin-api.ts';
import type { UpdateStatus } from '../../src/gateway/update/updater.ts';
import { FumoResult, FumoState } from '../../src/mo/fumo.ts';

const program = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const limit = { timeout: 30_000 };

const installing: UpdateStatus = {
  slot: 'A',
  version: '1.0.0',
  good: 'A',
  trying: undefined,
  state: FumoState.Updating,
  received: undefined,
  total: undefined,
  window: undefined,
  result: undefined,
  reason: undefined,
};

/** Has `postern update install` see one status after the other, the last for ever. */
async function install(t: TestContext, ...statuses: readonly UpdateStatus[]) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-update-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const socket = join(folder, 'admin.sock');
  const left = [...statuses];
  const status = () => (left.length > 1 ? left.shift() : left[0]);
  const admin = new AdminApi(socket, noEvents, { '/update': status }, { '/update': () => installing });
  t.after(() => admin[Symbol.asyncDispose]());
  await admin.start();
  const child = spawn(process.execPath, [program, 'update', 'install', 'one.bundle', '--socket', socket]);
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text) => {
      said += text;
    });
  const [code] = (await once(child, 'close')) as [number];
  return { code, said };
}

test('a restart between two polls is recognised by the new slot that is being tried', limit, async (t) => {
  const { code, said } = await install(t, installing, { ...installing, slot: 'B', trying: 'B' });
  assert.equal(code, 0, said);
  assert.match(said, /updating\ninstalled; the gateway restarts/);
});

test('the command ends if the new slot is healthy at the next poll', limit, async (t) => {
  const healthy = { ...installing, slot: 'B', good: 'B', state: FumoState.DoneWithoutData };
  const { code, said } = await install(t, installing, { ...healthy, result: FumoResult.Ok });
  assert.equal(code, 0, said);
  assert.match(said, /installed; the new slot is healthy/);
});

test('a refusal ends the command with its result and its reason', limit, async (t) => {
  const refused = { ...installing, result: FumoResult.Corrupt, reason: 'it is no bundle' };
  const { code, said } = await install(t, installing, refused);
  assert.equal(code, 1, said);
  assert.match(said, /refused with 402: it is no bundle/);
});
