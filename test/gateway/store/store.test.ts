import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { transaction } from '../../../src/base/database.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Acls, Nodes } from '../../../src/dm/stored-nodes.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import type { DeviceRecord } from '../../../src/mo/device-record.ts';
import { testSealing } from '../../state-files.ts';

const record = (deviceId: string): DeviceRecord => ({
  deviceId,
  state: 'attached',
  mode: 0,
  origin: 'local',
  address: 'coap://192.0.2.7:5683',
  lastSeen: 1_700_000_000_000,
  manufacturer: 'Maker',
  protocol: 'OMA-DM',
  isGateway: false,
});

const credential = (deviceId: string) => ({
  deviceId,
  clientName: deviceId,
  clientSecret: 'c',
  clientNonce: new Uint8Array([1]),
  serverSecret: 's',
  serverNonce: new Uint8Array([2]),
  origin: 'local' as const,
  attached: false,
});

test('all stores survive a restart, in a file that only its owner can read', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-store-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'deep', 'state.db');
  const properties = { title: 'T', timeStamp: '20261124T000000Z', version: 3 };
  {
    const database = openDatabase(file, gatewaySchema);
    new Inventory(database, 2).put(record('a'));
    new Credentials(database, 2, testSealing).put(credential('a'));
    new Outbox(database, 2).add('device-attach', 'a', '{}');
    new Nodes(database).apply(
      {
        put: [
          { path: 'X', format: 'node' },
          { path: 'X/bin', format: 'bin', value: Buffer.from([0]) },
          { path: 'X/text', format: 'chr', type: 't', value: 'v', ...properties },
          { path: 'Y', format: 'node' },
        ],
      },
      () => {},
    );
    new Acls(database, { '.': 'Get=*' }).apply(new Map([['./X', 'Get=a']]), () => {});
    database.close();
  }
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const database = openDatabase(file, gatewaySchema);
  t.after(() => database.close());
  assert.deepEqual([...new Inventory(database, 2).values()], [record('a')]);
  assert.deepEqual(new Credentials(database, 2, testSealing).get('a'), credential('a'));
  assert.deepEqual(new Outbox(database, 2).peek(9), [
    { sequence: 1, kind: 'device-attach', deviceId: 'a', body: '{}' },
  ]);
  const nodes = [...new Nodes(database).load('X')];
  assert.deepEqual(
    nodes.map(({ path }) => path),
    ['X', 'X/bin', 'X/text'],
  );
  assert.deepEqual(nodes[2], { path: 'X/text', format: 'chr', type: 't', value: 'v', ...properties });
  assert.equal(Buffer.from(nodes[1]?.value ?? '').toString('hex'), '00');
  const acls = new Map(new Acls(database, { '.': 'Get=*' }).load());
  assert.deepEqual([acls.get('.'), acls.get('./X')], ['Get=*', 'Get=a']);
});

test('full stores refuse new entries and keep existing ones', () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const inventory = new Inventory(database, 1);
  const credentials = new Credentials(database, 1, testSealing);
  inventory.put(record('a'));
  credentials.put(credential('a'));
  assert.throws(() => inventory.put(record('b')), { code: 'full' });
  assert.throws(() => credentials.put(credential('b')), { code: 'full' });
  inventory.put({ ...record('a'), state: 'attached' });
  assert.equal(inventory.get('a')?.state, 'attached');
});

test('the outbox keeps the latest alert of a device, drops the oldest at its bound, and counts the drops', () => {
  const outbox = new Outbox(openDatabase(':memory:', gatewaySchema), 2);
  outbox.add('device-attach', 'a', '{"n":1}');
  outbox.add('device-attach', 'a', '{"n":2}');
  outbox.add('device-attach', 'b', '{"n":3}');
  outbox.add('device-attach', 'c', '{"n":4}');
  assert.deepEqual(
    outbox.peek(9).map(({ body }) => body),
    ['{"n":3}', '{"n":4}'],
  );
  assert.equal(outbox.dropped, 1);
  outbox.remove(outbox.peek(1)[0]!.sequence);
  outbox.remove(outbox.peek(1)[0]!.sequence);
  outbox.add('device-attach', 'd', '{"n":5}');
  assert.equal(outbox.peek(1)[0]?.sequence, 5, 'a number is never used twice');
});

test('a transaction that throws stores nothing', () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const outbox = new Outbox(database, 9);
  assert.throws(() =>
    transaction(database, () => {
      outbox.add('device-attach', 'a', '1');
      throw new Error('no');
    }),
  );
  assert.equal(outbox.size, 0);
});

test('a file that is not a state, or of a later version, is refused with the reason', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-store-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const garbage = join(folder, 'garbage.db');
  writeFileSync(garbage, 'x'.repeat(5000));
  assert.throws(() => openDatabase(garbage, gatewaySchema), {
    code: 'configuration',
    message: /garbage\.db/,
  });
  const later = join(folder, 'later.db');
  openDatabase(later, gatewaySchema).close();
  const database = new DatabaseSync(later);
  database.exec('PRAGMA user_version = 99');
  database.close();
  assert.throws(() => openDatabase(later, gatewaySchema), { code: 'configuration', message: /version 99/ });
});
