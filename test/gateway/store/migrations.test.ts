import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Acls, Nodes } from '../../../src/dm/stored-nodes.ts';
import { Campaigns } from '../../../src/gateway/store/campaigns.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import {
  assertReleasedTables,
  earlierState,
  earlierVersions,
  freshState,
  shapeOf,
  testSealing,
} from '../../state-files.ts';

/** Rows that every version of the schema had a place for. */
const rows = [
  "INSERT INTO node (path, format, value, octets) VALUES ('GwConfig', 'node', NULL, 0), ('GwConfig/AttachAlert', 'bool', x'66616c7365', 0)",
  "INSERT INTO acl VALUES ('./GwFanout', 'Get=*')",
  "INSERT INTO credential VALUES ('d', 'd', 'c', x'01', 's', x'02', 'local', 1)",
  "INSERT INTO device (device_id, state, mode, origin, address, last_seen, manufacturer) VALUES ('d', 'attached', 0, 'local', 'coap://192.0.2.7', 1700000000000, 'Maker')",
  "INSERT INTO outbox (kind, device_id, body) VALUES ('device-attach', 'd', '{}')",
];

describe('the state of a gateway is migrated to the latest schema', () => {
  for (const version of earlierVersions)
    test(`from version ${version}`, (t) => {
      const file = earlierState(t, version, rows);
      const database = openDatabase(file, gatewaySchema);
      t.after(() => database.close());
      assert.deepEqual(
        [...new Inventory(database, 10).values()],
        [
          {
            deviceId: 'd',
            state: 'attached',
            mode: 0,
            origin: 'local',
            address: 'coap://192.0.2.7',
            lastSeen: 1700000000000,
            protocol: 'OMA-DM',
            isGateway: false,
            manufacturer: 'Maker',
          },
        ],
      );
      assert.equal(new Credentials(database, 10, testSealing).get('d')?.attached, true);
      assert.deepEqual(new Outbox(database, 10).peek(10), [
        { sequence: 1, kind: 'device-attach', deviceId: 'd', body: '{}' },
      ]);
      assert.deepEqual(
        [...new Nodes(database).load('GwConfig')].map(({ path, value, version: count }) => [
          path,
          value,
          count,
        ]),
        [
          ['GwConfig', undefined, 0],
          ['GwConfig/AttachAlert', 'false', 0],
        ],
      );
      assert.equal(new Map(new Acls(database, {}).load()).get('./GwFanout'), 'Get=*');
      assert.deepEqual(new Campaigns(database, 'fanout').runs(), []);
      assert.equal(shapeOf(file).version, gatewaySchema.steps.length);
      assert.ok(existsSync(`${file}.version-${version}`), 'the way back');
      assertReleasedTables(t, gatewaySchema, file);
    });
});

test('a new state has only the tables of a gateway, in the form of 0.1.0', (t) => {
  const file = freshState(t);
  openDatabase(file, gatewaySchema).close();
  const { tables, version, applicationId } = shapeOf(file);
  assert.deepEqual(Object.keys(tables), [
    'acl',
    'campaign',
    'campaign_target',
    'client_setting',
    'client_update',
    'credential',
    'device',
    'device_key',
    'device_presence',
    'dtls_association',
    'dtls_run',
    'epoch',
    'gateway_update',
    'image',
    'image_operation',
    'node',
    'observation',
    'oscore_sender',
    'outbox',
    'outbox_child',
    'outbox_gone',
    'outbox_share',
    'outbox_subject',
    'pinned_key',
    'proven_client',
    'registration',
    'set_aside',
    'telemetry_report',
    'traffic',
    'undeliverable',
  ]);
  assert.deepEqual([version, applicationId], [gatewaySchema.steps.length, 0x50734757]);
  assertReleasedTables(t, gatewaySchema, file);
});
