import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, type TestContext, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { deviceSchema } from '../../src/device/schema.ts';
import { StoredBranch } from '../../src/dm/stored-branch.ts';
import { Acls, Nodes } from '../../src/dm/stored-nodes.ts';
import { Accounts, accountsDescription } from '../../src/mo/dm-acc.ts';
import { EventRecorder } from '../event-recorder.ts';
import {
  assertReleasedTables,
  earlierState,
  earlierVersions,
  freshState,
  releasedState,
  releasedVersion,
  shapeOf,
} from '../state-files.ts';

/** Opens a state as a device does, until the test ends. */
function opened(t: TestContext, file: string) {
  const database = openDatabase(file, deviceSchema);
  t.after(() => database.close());
  return database;
}

const hex = (octets: Uint8Array): string => Buffer.from(octets).toString('hex');

describe('the state of a device of Postern 0.1.0', () => {
  test('the account from its gateway is read, with secrets and nonces', (t) => {
    const nodes = new Nodes(opened(t, releasedState(t, 'device')));
    const accounts = new Accounts(new StoredBranch('DMAcc', accountsDescription, nodes, {}));
    const [account] = accounts.list();
    assert.deepEqual(
      [accounts.list().length, account?.serverId, account?.address],
      [1, 'gw-1', 'coap://127.0.0.1:39004/dm'],
    );
    assert.deepEqual(
      [account?.own.secret, hex(account!.own.nonce)],
      ['wcw0hCUNThvX9lRoPuDc8Q', '36865b8f6fe1e64388a710c75d5cae67'],
    );
    assert.deepEqual(
      [account?.peer.secret, hex(account!.peer.nonce)],
      ['Zo8EVCeAvGRdqoqRjEG0QQ', 'c77026316e31651906d4d797624588a5'],
    );
  });

  test('settings, a running update, ACLs and an applied bootstrap are read', (t) => {
    const database = opened(t, releasedState(t, 'device'));
    const nodes = new Nodes(database);
    const values = (branch: string) =>
      Object.fromEntries(
        [...nodes.load(branch)].flatMap(({ path, value }) => (value === undefined ? [] : [[path, value]])),
      );
    assert.deepEqual(values('Settings'), {
      'Settings/Label': 'hall',
      'Settings/LocationUpdate': 'true',
      'Settings/ReportInterval': '3600',
    });
    assert.deepEqual(values('FwUpdate'), {
      'FwUpdate/Download/PkgURL': '',
      'FwUpdate/DownloadAndUpdate/PkgURL': 'coap://127.0.0.1:55826/fw',
      'FwUpdate/PkgVersion': '2.0.0',
      'FwUpdate/State': '30',
    });
    const [label] = nodes.load('Settings/Label');
    assert.deepEqual([label?.timeStamp, label?.version], ['20261128T152453Z', 1]);
    const acls = new Acls(database, {});
    assert.deepEqual(Object.fromEntries(acls.load()), {
      './DMAcc/account1': 'Get=*&Replace=/bootstrap&Delete=/bootstrap',
      './FwUpdate': 'Get=*&Add=gw-1&Replace=gw-1&Exec=gw-1',
      './Settings': 'Get=*&Replace=gw-1',
    });
    assert.deepEqual(
      database
        .prepare('SELECT * FROM applied_bootstrap')
        .all()
        .map((row) => Object.values(row)),
      [[1, '2fbcd6a40570b25868ea68cdb39835ddd2b65ed7406f8ac23806ee0c01158cb1']],
    );
  });

  test('a device continues with it, and keeps a copy that 0.1.0 can open', async (t) => {
    const file = releasedState(t, 'device');
    const before = shapeOf(file);
    assert.deepEqual([before.version, before.applicationId], [releasedVersion, 0]);
    const config = checkConfig(
      deviceConfigSchema,
      { device: { id: 'urn:dev:ops:1', state: file, 'factory-secret': 'factory-secret-of-urn:dev:ops:1' } },
      'test',
    );
    {
      await using device = new Device(config, { events: new EventRecorder() });
      assert.deepEqual(device.servers, ['gw-1']);
      assert.deepEqual(
        [device.value('Settings', 'Label'), device.value('FwUpdate', 'State')],
        ['hall', '30'],
      );
    }
    assertReleasedTables(t, deviceSchema, file);
    assert.deepEqual(shapeOf(`${file}.version-${releasedVersion}`), { ...before, integrity: 'ok' });
  });
});

for (const version of earlierVersions)
  test(`a state of version ${version} is migrated to the latest schema`, (t) => {
    const file = earlierState(t, version, [
      "INSERT INTO node (path, format, value, octets) VALUES ('Settings', 'node', NULL, 0), ('Settings/Label', 'chr', x'68616c6c', 0)",
      "INSERT INTO acl VALUES ('./Settings', 'Get=*')",
    ]);
    const database = opened(t, file);
    assert.deepEqual(
      [...new Nodes(database).load('Settings')].map(({ path, value }) => [path, value]),
      [
        ['Settings', undefined],
        ['Settings/Label', 'hall'],
      ],
    );
    assert.equal(new Map(new Acls(database, {}).load()).get('./Settings'), 'Get=*');
    assert.deepEqual(database.prepare('SELECT * FROM applied_bootstrap').all(), []);
    assert.ok(existsSync(`${file}.version-${version}`), 'the way back');
    assertReleasedTables(t, deviceSchema, file);
  });

test('a new state has only the tables of a device, in the form of 0.1.0', (t) => {
  const file = freshState(t);
  openDatabase(file, deviceSchema).close();
  const { tables, version, applicationId } = shapeOf(file);
  assert.deepEqual(Object.keys(tables), ['acl', 'applied_bootstrap', 'node', 'oscore_sender', 'set_aside']);
  assert.deepEqual([version, applicationId], [deviceSchema.steps.length, 0x50734544]);
  assertReleasedTables(t, deviceSchema, file);
});
