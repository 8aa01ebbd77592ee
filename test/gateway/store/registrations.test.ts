import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { type Registration, Registrations } from '../../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { FailingDisk } from './failing-disk.ts';

const registration = (deviceId: string): Registration => ({
  deviceId,
  location: `at-${deviceId}`,
  address: '192.0.2.9',
  port: 5683,
  version: '1.1',
  lifetime: 60,
  queueMode: false,
  root: [],
  paths: [[3, 0]],
  formats: [],
});

test('a new registration at the limit that cannot be stored leaves the oldest one as it was, wherever the write fails', async (t) => {
  using disk = new FailingDisk();
  const database = openDatabase(':memory:', gatewaySchema);
  t.after(() => database.close());
  const registrations = new Registrations(database, 2);
  for (const id of ['a', 'b']) registrations.put(registration(id));
  let failed = 0;
  for (let at = 0; ; at++) {
    disk.failAfter(at);
    try {
      registrations.put(registration('c'));
    } catch (thrown) {
      assert.equal((thrown as { code: string }).code, 'storage');
    }
    if (!disk.mend()) break;
    failed++;
    for (const id of ['a', 'b']) assert.equal(registrations.at(`at-${id}`)?.deviceId, id, `place ${at}`);
    assert.equal(registrations.at('at-c'), undefined);
    const stored = [...new Registrations(database, 2).values()].map(({ deviceId }) => deviceId);
    assert.deepEqual(stored.toSorted(), ['a', 'b']);
  }
  assert.ok(failed >= 4, `${failed} writes`);
  assert.equal(registrations.at('at-c')?.deviceId, 'c');
  assert.equal([...registrations.values()].length, 2);
});

test('rows beyond a limit that was lowered are deleted with the next registration', async (t) => {
  const database = openDatabase(':memory:', gatewaySchema);
  t.after(() => database.close());
  const before = new Registrations(database, 3);
  for (const id of ['a', 'b', 'c']) before.put(registration(id));
  new Registrations(database, 2).put(registration('d'));
  const stored = [...new Registrations(database, 10).values()].map(({ deviceId }) => deviceId);
  assert.deepEqual(stored.toSorted(), ['c', 'd']);
});
