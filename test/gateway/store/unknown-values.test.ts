import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Campaigns } from '../../../src/gateway/store/campaigns.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { Site } from '../../journeys/site.ts';
import { releasedState } from '../../state-files.ts';

const reasons = [
  'the state has outbox.kind = device-sighted, which this program does not know',
  'the state has device.mode = 7, which this program does not know',
  'the state has credential.origin = heaven, which this program does not know',
];
const ofCampaign = 'the state has campaign_target.state = paused, which this program does not know';

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

test('a row with an unknown value is reported with its table, and the other rows are read', (t) => {
  const database = openDatabase(stateOfTomorrow(t, 'gateway'), gatewaySchema);
  t.after(() => database.close());
  const outbox = new Outbox(database, 100);
  const unreadable = outbox.unreadable();
  const inventory = new Inventory(database, 100, unreadable);
  const credentials = new Credentials(database, 100, unreadable);
  assert.deepEqual(unreadable, reasons);
  assert.deepEqual([inventory.size, inventory.get('urn:dev:ops:1')], [6, undefined]);
  assert.deepEqual([credentials.size, credentials.get('urn:dev:ops:2')], [5, undefined]);
  assert.deepEqual([outbox.servers(), outbox.peek(100, 'other.example'), outbox.size], [[undefined], [], 7]);
  assert.equal(outbox.peek(100).length, 6);
  assert.equal(outbox.hasOtherThan(['device-attach', 'device-detach']), true);
  const campaigns = new Campaigns(database, 'fanout');
  assert.throws(() => campaigns.targets('update'), { code: 'configuration', message: ofCampaign });
  assert.equal(campaigns.targets('label').length, 2);
});

test('an alert of an unknown kind does not cause a session', (t) => {
  const database = openDatabase(releasedState(t, 'gateway'), gatewaySchema);
  t.after(() => database.close());
  database.prepare("UPDATE outbox SET kind = 'device-sighted'").run();
  const outbox = new Outbox(database, 100);
  assert.deepEqual([outbox.servers(), outbox.hasOtherThan([]), outbox.size], [[], false, 7]);
});

test('a gateway starts without the rows that it cannot read, reports them, and keeps them', async (t) => {
  const file = stateOfTomorrow(t, 'gateway');
  {
    await using site = new Site('mqtt://127.0.0.1:9');
    const gateway = await site.gateway([], { gateway: { id: 'gw-1', state: file } }, false);
    assert.equal(gateway.devices().length, 6);
    assert.deepEqual(
      site.gatewayEvents.all
        .filter(({ name }) => name === 'state.unreadable')
        .map(({ fields }) => fields.reason),
      [...reasons, `fanout update: ${ofCampaign}`],
    );
    await site.gatewayEvents.until('fanout.ended', { name: 'reboot' });
  }
  using database = new DatabaseSync(file);
  const count = (sql: string) => database.prepare(sql).all().length;
  assert.equal(count("SELECT 1 FROM outbox WHERE kind = 'device-sighted'"), 1);
  assert.equal(count('SELECT 1 FROM device WHERE mode = 7'), 1);
  assert.equal(count("SELECT 1 FROM credential WHERE origin = 'heaven'"), 1);
  assert.equal(count("SELECT 1 FROM campaign_target WHERE state = 'paused'"), 1);
});
