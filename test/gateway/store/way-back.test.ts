import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { dropCopies, openDatabase } from '../../../src/base/open-database.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';

/** State as the version before this one left it, with one alert in it. */
function earlier(t: TestContext): { file: string; folder: string; version: number } {
  const folder = mkdtempSync(join(tmpdir(), 'postern-back-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'state.db');
  const steps = gatewaySchema.steps.slice(0, -1);
  const database = openDatabase(file, { ...gatewaySchema, steps });
  new Outbox(database, 10).add('device-attach', 'urn:dev:ops:1', '{}');
  database.close();
  return { file, folder, version: gatewaySchema.steps.length };
}

/** As a later version would have left it, with one alert more. */
function migratedFurther(file: string): void {
  const database = new DatabaseSync(file);
  database.exec("INSERT INTO outbox (kind, device_id, body) VALUES ('device-attach', 'urn:dev:ops:2', '{}')");
  database.exec('CREATE TABLE of_a_later_version (x); PRAGMA user_version = 99');
  database.close();
}

test('the state is copied before a migration, and the copy is deleted when the version has proved good', (t) => {
  const { file, folder, version } = earlier(t);
  openDatabase(file, gatewaySchema).close();
  assert.ok(readdirSync(folder).includes(`state.db.version-${version - 1}`));
  dropCopies(file, gatewaySchema);
  assert.deepEqual(readdirSync(folder).toSorted(), ['state.db', 'state.db.lock']);
});

test('an earlier version that finds a later state takes the copy, with the alerts that waited then', (t) => {
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

test('without a copy a later state is refused with its version', (t) => {
  const { file } = earlier(t);
  openDatabase(file, gatewaySchema).close();
  dropCopies(file, gatewaySchema);
  migratedFurther(file);
  assert.throws(
    () => openDatabase(file, gatewaySchema),
    /the state is of version 99; this program knows \d+/,
  );
});

test('a start without a migration makes no copy', (t) => {
  const { file, folder } = earlier(t);
  openDatabase(file, gatewaySchema).close();
  dropCopies(file, gatewaySchema);
  openDatabase(file, gatewaySchema).close();
  assert.deepEqual(readdirSync(folder).toSorted(), ['state.db', 'state.db.lock']);
});
