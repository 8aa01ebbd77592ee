import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { dropCopies, openDatabase } from '../../../src/base/open-database.ts';
import { Images } from '../../../src/gateway/store/images.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';

/** State as the version before this one left it, with one alert in it. */
function earlier(t: TestContext): { file: string; folder: string; version: number } {
  const folder = mkdtempSync(join(tmpdir(), 'postern-back-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'state.db');
  const database = openDatabase(file, gatewaySchema);
  new Outbox(database, 10).add('device-attach', 'urn:dev:ops:1', '{}');
  const version = Number(database.prepare('PRAGMA user_version').get()?.user_version);
  database.close();
  const raw = new DatabaseSync(file);
  raw.exec(
    `ALTER TABLE image DROP COLUMN total; ALTER TABLE image DROP COLUMN reason; PRAGMA user_version = ${version - 1}`,
  );
  raw.close();
  return { file, folder, version };
}

/** As a later version would have left it, with one alert more. */
function migratedFurther(file: string): void {
  const database = new DatabaseSync(file);
  database.exec("INSERT INTO outbox (kind, device_id, body) VALUES ('device-attach', 'urn:dev:ops:2', '{}')");
  database.exec('CREATE TABLE of_a_later_version (x); PRAGMA user_version = 99');
  database.close();
}

test('before a migration the state is copied; the copy goes when the version is found good', (t) => {
  const { file, folder, version } = earlier(t);
  openDatabase(file, gatewaySchema).close();
  assert.ok(readdirSync(folder).includes(`state.db.version-${version - 1}`));
  dropCopies(file, gatewaySchema);
  assert.deepEqual(readdirSync(folder), ['state.db']);
});

test('who finds a state of a later version takes the copy, with the alerts that waited then', (t) => {
  const { file } = earlier(t);
  openDatabase(file, gatewaySchema).close();
  migratedFurther(file);
  const database = openDatabase(file, gatewaySchema);
  t.after(() => database.close());
  assert.deepEqual(
    new Outbox(database, 10).peek(10).map(({ deviceId }) => deviceId),
    ['urn:dev:ops:1'],
  );
});

test('without a copy a later state is left alone, and that is said', (t) => {
  const { file } = earlier(t);
  openDatabase(file, gatewaySchema).close();
  dropCopies(file, gatewaySchema);
  migratedFurther(file);
  assert.throws(
    () => openDatabase(file, gatewaySchema),
    /the state is of version 99; this program knows \d+/,
  );
});

test('without a migration there is no copy, and a start changes nothing', (t) => {
  const { file, folder } = earlier(t);
  openDatabase(file, gatewaySchema).close();
  dropCopies(file, gatewaySchema);
  openDatabase(file, gatewaySchema).close();
  assert.deepEqual(readdirSync(folder), ['state.db']);
});

test('images of the version before keep what is served, and go on with what came', (t) => {
  const { file } = earlier(t);
  const raw = new DatabaseSync(file);
  const put = raw.prepare(
    'INSERT INTO image (name, state, size, hash, validator, inline, used) VALUES (?, ?, ?, ?, ?, 0, 5)',
  );
  put.run('coming', 1, 1000, null, '"v1"');
  put.run('ready', 2, 2000, 'ab', '"v2"');
  put.run('evicted', 4, 3000, 'cd', '"v3"');
  raw.close();
  const database = openDatabase(file, gatewaySchema);
  t.after(() => database.close());
  const images = new Images(database);
  assert.deepEqual(
    ['coming', 'ready', 'evicted'].map((name) => {
      const { size, hash, total, validator } = images.get(name)!;
      return { size, hash, total, validator };
    }),
    [
      { size: undefined, hash: undefined, total: 1000, validator: '"v1"' },
      { size: 2000, hash: 'ab', total: undefined, validator: '"v2"' },
      { size: 3000, hash: undefined, total: undefined, validator: '"v3"' },
    ],
  );
});
