import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { countSetAside, onSetAside, type SetAside } from '../../../src/base/rows.ts';
import { Campaigns } from '../../../src/gateway/store/campaigns.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { Site } from '../../journeys/site.ts';
import { releasedState, testSealing } from '../../state-files.ts';

/** Rows that are set aside, in the order in which the tables are read. */
const found = [
  ['outbox', /^kind is none of /],
  ['device', /^mode is none of 0, 1, 2$/],
  ['credential', /^origin is none of /],
  ['campaign_target', /^state is none of /],
] as const;

/** The released state with a value in each of these columns that only a later program can know. */
function stateOfTomorrow(...context: Parameters<typeof releasedState>): string {
  const file = releasedState(...context);
  using database = new DatabaseSync(file);
  database.exec(`
    UPDATE outbox SET kind = 'device-sighted' WHERE server = 'other.example';
    UPDATE device SET mode = 7 WHERE device_id = 'urn:dev:ops:1';
    UPDATE credential SET origin = 'heaven' WHERE device_id = 'urn:dev:ops:2';
    UPDATE campaign_target SET state = 'paused' WHERE name = 'update' AND device = 'urn:dev:ops:2';`);
  return file;
}

const assertFound = (told: readonly { table?: unknown; reason?: unknown }[]) => {
  assert.equal(told.length, found.length);
  for (const [at, [table, reason]] of found.entries()) {
    assert.equal(told[at]?.table, table);
    assert.match(String(told[at]?.reason), reason);
  }
};

test('a row with an unknown value is set aside and reported with its table, and the other rows are read', (t) => {
  const database = openDatabase(stateOfTomorrow(t, 'gateway'), gatewaySchema);
  t.after(() => database.close());
  const told: SetAside[] = [];
  onSetAside(database, (rows) => told.push(rows));
  const outbox = new Outbox(database, 100);
  const inventory = new Inventory(database, 100);
  const credentials = new Credentials(database, 100, testSealing);
  assert.deepEqual([inventory.size, inventory.get('urn:dev:ops:1')], [6, undefined]);
  assert.deepEqual([credentials.size, credentials.get('urn:dev:ops:2')], [5, undefined]);
  assert.deepEqual([outbox.servers(), outbox.peek(100, 'other.example'), outbox.size], [[undefined], [], 6]);
  assert.equal(outbox.peek(100).length, 6);
  assert.equal(outbox.hasOtherThan(['device-attach', 'device-detach']), true);
  const campaigns = new Campaigns(database, 'fanout');
  const unknown = campaigns.targets('update').find(({ device }) => device === 'urn:dev:ops:2');
  assert.deepEqual([unknown?.state, unknown?.outcome], ['ended', '{"status":500,"parts":[]}']);
  assert.equal(campaigns.targets('label').length, 2);
  assertFound(told);
});

test('an alert of an unknown kind does not cause a session', (t) => {
  const database = openDatabase(releasedState(t, 'gateway'), gatewaySchema);
  t.after(() => database.close());
  database.prepare("UPDATE outbox SET kind = 'device-sighted'").run();
  const outbox = new Outbox(database, 100);
  assert.deepEqual([outbox.servers(), outbox.hasOtherThan([]), outbox.size], [[], false, 0]);
  assert.equal(countSetAside(database), 7);
});

test('a gateway starts without the rows that it cannot read, reports them, and keeps them', async (t) => {
  const file = stateOfTomorrow(t, 'gateway');
  {
    await using site = new Site('mqtt://127.0.0.1:9');
    const gateway = await site.gateway([], { gateway: { id: 'gw-1', state: file } }, false);
    assert.equal(gateway.devices().length, 6);
    await site.gatewayEvents.until('fanout.ended', { name: 'reboot' });
    assertFound(
      site.gatewayEvents.all.filter(({ name }) => name === 'state.row-set-aside').map(({ fields }) => fields),
    );
    assert.equal(gateway.status().setAside, 4);
  }
  using database = new DatabaseSync(file);
  const kept = database.prepare('SELECT source, body FROM set_aside ORDER BY number').all();
  assert.deepEqual(
    kept.map(({ source }) => source),
    found.map(([table]) => table),
  );
  assert.match(String(kept[2]?.body), /"heaven"/);
});
