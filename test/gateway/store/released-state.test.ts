import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Acls, Nodes } from '../../../src/dm/stored-nodes.ts';
import { type CampaignKind, Campaigns } from '../../../src/gateway/store/campaigns.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Images } from '../../../src/gateway/store/images.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { Registrations } from '../../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { UpdateRecords } from '../../../src/gateway/store/update-record.ts';
import {
  assertReleasedTables,
  releasedState,
  releasedVersion,
  shapeOf,
  testSealing,
} from '../../state-files.ts';

/** Opens a copy of the released state as the gateway does, until the test ends. */
function released(t: TestContext) {
  const database = openDatabase(releasedState(t, 'gateway'), gatewaySchema);
  t.after(() => database.close());
  return database;
}

const hex = (octets: Uint8Array): string => Buffer.from(octets).toString('hex');

describe('the state of a gateway of Postern 0.1.0', () => {
  test('attached devices are read, with properties and addresses', (t) => {
    const inventory = new Inventory(released(t), 100);
    const device = (number: number, port: number, lastSeen: number, more: object = {}) => ({
      deviceId: `urn:dev:ops:${number}`,
      state: 'attached',
      mode: 0,
      origin: 'local',
      address: `coap://127.0.0.1:${port}`,
      lastSeen,
      protocol: 'OMA-DM',
      isGateway: false,
      manufacturer: 'Maker & Sons',
      model: 'Meter',
      firmware: '1.0.0',
      deviceType: 'device',
      ...more,
    });
    assert.deepEqual(
      [...inventory.values()],
      [
        {
          deviceId: 'gw-2',
          state: 'attached',
          mode: 0,
          origin: 'local',
          address: 'coap://127.0.0.1:53238',
          lastSeen: 1795879492000,
          protocol: 'OMA-DM',
          isGateway: true,
          manufacturer: 'Postern',
          model: 'DM Gateway',
          firmware: '0.1.0',
          deviceType: 'gateway',
        },
        {
          deviceId: 'urn:dev:deep:1',
          state: 'attached',
          mode: 0,
          origin: 'local',
          address: 'coap://127.0.0.1:53238',
          lastSeen: 1795879491995,
          protocol: 'OMA-DM',
          isGateway: false,
          manufacturer: 'Maker & Sons',
          model: 'Reference End Device',
          via: 'gw-2',
        },
        {
          deviceId: 'urn:dev:lwm2m:1',
          state: 'attached',
          mode: 2,
          origin: 'local',
          address: 'coap://127.0.0.1:58704',
          lastSeen: 1795879491608,
          protocol: 'LwM2M',
          isGateway: false,
          manufacturer: 'Maker & Sons',
          model: 'T1',
          firmware: '1.0.0',
          deviceType: 'thermometer',
          objects: '/3/0 /5/0 /3303/0 /3311/0 /1/0',
        },
        device(1, 58675, 1795879493148),
        device(2, 56435, 1795879491369),
        device(4, 50587, 1795879491576, { origin: 'server', model: 'Reference End Device' }),
        device(5, 57729, 1795879493346),
      ],
    );
  });

  test('credentials of both kinds of bootstrap and of manual provisioning are read', (t) => {
    const credentials = new Credentials(released(t), 100, testSealing);
    assert.deepEqual(
      credentials.list().map(({ deviceId, origin, attached }) => [deviceId, origin, attached]),
      [
        ['gw-2', 'local', true],
        ['urn:dev:ops:1', 'local', true],
        ['urn:dev:ops:2', 'local', true],
        ['urn:dev:ops:4', 'server', true],
        ['urn:dev:ops:5', 'local', true],
        ['urn:dev:ops:http', 'manual', false],
      ],
    );
    const { clientNonce, serverNonce, ...secrets } = credentials.get('urn:dev:ops:4')!;
    assert.deepEqual(secrets, {
      deviceId: 'urn:dev:ops:4',
      clientName: 'urn:dev:ops:4',
      clientSecret: 'pi8BaY9nygLpXKljg2Zquw',
      serverSecret: '869WM_hy7tIJGS9klTSpVQ',
      origin: 'server',
      attached: true,
    });
    assert.deepEqual(
      [hex(clientNonce), hex(serverNonce)],
      ['f9253c23ed36a27dbc2e88573bfa584f', '6387a85d993a8328e80a34cdc65acd96'],
    );
  });

  test('waiting alerts for the own DM server and for another one are read', (t) => {
    const outbox = new Outbox(released(t), 100);
    const failed =
      '<CampaignResult Total="1" Done="0" Failed="1" Pending="0"><Group Status="408" Commands="" Count="1"><Device ID="urn:dev:ops:2"/></Group></CampaignResult>';
    const read = (server?: string) =>
      outbox
        .peek(100, server)
        .map(({ sequence, kind, deviceId, body }) => [sequence, kind, deviceId, JSON.parse(body)]);
    assert.deepEqual(read(), [
      [
        11,
        'image-operation',
        'late',
        {
          uri: './GwImageInventory/Images/late',
          result: '<ImageResult Code="200"/>',
          correlator: '6f7d78a6d88fcf4d',
        },
      ],
      [12, 'device-detach', 'urn:dev:ops:3', { reason: 'left' }],
      [13, 'firmware-update', 'Download', { operation: 'Download', correlator: 'order-8', result: 402 }],
      [
        14,
        'device-attach',
        'urn:dev:ops:5',
        { mode: 0, bootstrap: 'local', manufacturer: 'Maker & Sons', model: 'Meter' },
      ],
      [
        15,
        'command-fanout',
        'gone',
        { uri: './GwFanout/Fanout/gone', result: failed, correlator: '0ed858e22b90fb21' },
      ],
      [
        16,
        'device-trigger',
        'evening',
        {
          uri: './GwEdTrigger/Trigger/evening',
          result:
            '<CampaignResult Total="2" Done="1" Failed="1" Pending="0"><Group Status="200" Commands="" Count="1"/><Group Status="408" Commands="" Count="1"><Device ID="urn:dev:ops:6"/></Group></CampaignResult>',
          correlator: '002bde6ffc8a914f',
        },
      ],
    ]);
    assert.deepEqual(read('other.example'), [
      [
        17,
        'command-fanout',
        'mine',
        { uri: './GwFanout/Fanout/mine', result: failed, correlator: '0a086455d5843900' },
      ],
    ]);
    outbox.add('device-attach', 'urn:dev:ops:6', '{}');
    assert.equal(outbox.peek(100).at(-1)?.sequence, 18, 'numbers go on');
  });

  test('campaigns are read, with the state of each device', (t) => {
    const database = released(t);
    const runs = (kind: CampaignKind) => {
      const campaigns = new Campaigns(database, kind);
      return campaigns
        .runs()
        .map(({ name, state, server, correlator }) => [
          [name, state, server, correlator],
          ...campaigns
            .targets(name)
            .map(({ device, state: at, outcome }) => [device, at, outcome && JSON.parse(outcome).status]),
        ]);
    };
    assert.deepEqual(runs('fanout'), [
      [
        ['gone', 2, 'dm.example', '0ed858e22b90fb21'],
        ['urn:dev:ops:2', 'ended', 408],
      ],
      [
        ['label', 2, 'dm.example', '45ffe1416ea9853f'],
        ['urn:dev:ops:1', 'ended', 200],
        ['urn:dev:ops:nobody', 'ended', 404],
      ],
      [
        ['mine', 2, 'other.example', '0a086455d5843900'],
        ['urn:dev:ops:2', 'ended', 408],
      ],
      [
        ['reboot', 1, 'dm.example', '996672e59b8c602e'],
        ['urn:dev:lwm2m:1', 'begun', undefined],
      ],
      [
        ['update', 1, 'dm.example', 'dad65314f262ffb6'],
        ['urn:dev:ops:1', 'accepted', 200],
        ['urn:dev:ops:2', 'pending', undefined],
        ['urn:dev:ops:nobody', 'ended', 404],
      ],
    ]);
    assert.deepEqual(runs('trigger'), [
      [
        ['evening', 2, 'dm.example', '002bde6ffc8a914f'],
        ['urn:dev:ops:4', 'ended', 200],
        ['urn:dev:ops:6', 'ended', 408],
      ],
      [
        ['morning', 2, 'dm.example', '3e7275e4bf5ecd1f'],
        ['urn:dev:ops:4', 'ended', 200],
      ],
      [
        ['wake', 1, 'dm.example', 'ce5e779e8ebce242'],
        ['urn:dev:ops:4', 'ended', 200],
        ['urn:dev:ops:6', 'pending', undefined],
      ],
    ]);
    assert.deepEqual(new Campaigns(database, 'fanout').counts('label'), { total: 2, done: 1, failed: 1 });
    assert.deepEqual(
      JSON.parse(new Campaigns(database, 'fanout').target('update', 'urn:dev:ops:1')!.outcome!),
      {
        status: 200,
        parts: [200, 200, 202].map((status) => ({ status, results: [] })),
      },
    );
  });

  test('images that were pushed, downloaded, refused or still loading are read', (t) => {
    const hash = '0f1442166d84cb72f5a6f29b63c4e82469086e7d5ebae3082c53050b5c8eb9ae';
    assert.deepEqual(new Images(released(t)).values(), [
      {
        name: 'coming',
        state: 1,
        inline: false,
        used: 1795879493261,
        size: 16,
        validator: '"v1"',
        server: 'dm.example',
        correlator: '9417d3355e7d9a2a',
      },
      {
        name: 'late',
        state: 2,
        inline: false,
        used: 1795879493243,
        size: 16,
        hash,
        validator: '"v1"',
        result: 200,
      },
      {
        name: 'loaded',
        state: 2,
        inline: false,
        used: 1795879493084,
        size: 16,
        hash,
        validator: '"v1"',
        result: 200,
      },
      {
        name: 'pushed',
        state: 2,
        inline: true,
        used: 1795879493063,
        size: 8,
        hash: 'a5df3fde7b200c3fa2791144c7e05c5c2bced4c6ad863d3a4cf76c972c1712f9',
        result: 200,
      },
      { name: 'wrong', state: 3, inline: true, used: 1795879493075, size: 8, result: 402 },
    ]);
  });

  test('the registration of an LwM2M client and a running update are read', (t) => {
    const database = released(t);
    assert.deepEqual(new Registrations(database, 10).at('d6Zo3cR8Zem3'), {
      deviceId: 'urn:dev:lwm2m:1',
      location: 'd6Zo3cR8Zem3',
      address: '127.0.0.1',
      port: 58704,
      version: '1.1',
      lifetime: 3600,
      queueMode: false,
      root: [],
      paths: [
        [3, 0],
        [5, 0],
        [3303, 0],
        [3311, 0],
        [1, 0],
      ],
      formats: [112],
    });
    assert.deepEqual(new UpdateRecords(database).get(), {
      operation: 'DownloadAndUpdate',
      url: 'http://127.0.0.1:36663/part-bundle',
      phase: 'downloading',
      validator: '"v1"',
    });
  });

  test('nodes and ACLs are read', (t) => {
    const database = released(t);
    const nodes = new Nodes(database);
    const counts = {
      DMAcc: 47,
      FwUpdate: 6,
      GwConfig: 6,
      GwDeviceInventory: 8,
      GwEdTrigger: 41,
      GwFanout: 41,
      GwImageInventory: 15,
    };
    for (const [branch, count] of Object.entries(counts))
      assert.equal([...nodes.load(branch)].length, count, branch);
    const [label] = nodes.load('GwFanout/Fanout/label');
    assert.deepEqual(label, {
      path: 'GwFanout/Fanout/label',
      format: 'node',
      title: 'Names of rooms',
      timeStamp: '20261128T152453Z',
      version: 1,
    });
    const [nonce] = nodes.load('DMAcc/account1/AppAuth/SRVCRED/AAuthData');
    assert.equal(hex(nonce?.value as Uint8Array), '194fbf03f0fd2c87d714420a7037daa5');
    const acls = new Acls(database, { '.': 'Get=*' });
    assert.deepEqual(Object.fromEntries(acls.load()), {
      '.': 'Get=*',
      './DMAcc/account2': 'Get=*&Replace=dm.example&Delete=dm.example',
      './GwDeviceInventory/Records/d05e82b42f7ea41b':
        'Delete=dm.example&Exec=dm.example+other.example&Get=dm.example',
      './GwFanout/Fanout':
        'Add=dm.example+other.example&Delete=dm.example+other.example&Exec=dm.example&Get=dm.example&Replace=dm.example',
      './GwFanout/Fanout/mine':
        'Add=other.example&Delete=other.example&Exec=other.example&Get=other.example&Replace=other.example',
    });
  });

  test('it remains a state that 0.1.0 can open', (t) => {
    const file = releasedState(t, 'gateway');
    const before = shapeOf(file);
    assert.deepEqual([before.version, before.applicationId], [releasedVersion, 0]);
    openDatabase(file, gatewaySchema).close();
    const after = shapeOf(file);
    assert.deepEqual([after.version, after.integrity], [gatewaySchema.steps.length, 'ok']);
    assertReleasedTables(t, gatewaySchema, file);
    assert.deepEqual(shapeOf(`${file}.version-${releasedVersion}`), { ...before, integrity: 'ok' });
  });
});
