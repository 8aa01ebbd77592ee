import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, type TestContext, test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { Parties } from '../../src/headend/parties.ts';
import { Records } from '../../src/headend/records.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { HandClock } from '../hand-clock.ts';
import {
  assertReleasedTables,
  earlierState,
  earlierVersions,
  freshState,
  releasedState,
  releasedVersion,
  shapeOf,
} from '../state-files.ts';

const known = {
  gateway: ['gw-1', 'gw-2', 'gw-3'].map((id) => ({
    id,
    'client-secret': 'c',
    'server-secret': 's',
    'client-auth': ['md5' as const],
    'server-auth': ['md5' as const],
  })),
  device: [],
};

/** Opens a state as the head-end does, until the test ends. */
function opened(t: TestContext, file: string) {
  const database = openDatabase(file, headendSchema);
  t.after(() => database.close());
  /** The journey of this name (test/journeys) shows that the gateway is told. */
  const pendingDetaches = database
    .prepare('SELECT gateway, device FROM pending_detach')
    .all()
    .map((row) => Object.values(row));
  return {
    parties: new Parties(known, database),
    records: new Records(database, new HandClock()),
    pendingDetaches,
  };
}

const hex = (octets: Uint8Array): string => Buffer.from(octets).toString('hex');

describe('the state of a head-end of Postern 0.1.0', () => {
  test('nonces, associations and the last alert sequence of parties are read', (t) => {
    const { parties, pendingDetaches } = opened(t, releasedState(t, 'headend'));
    const nonces = (id: string) => {
      const { own, peer } = parties.account('dm.example', parties.get(id)!);
      return [hex(peer.nonce), hex(own.nonce)];
    };
    assert.deepEqual(nonces('gw-1'), [
      'fab8bd58878a0dbe20fb807c2eda0069',
      '194fbf03f0fd2c87d714420a7037daa5',
    ]);
    assert.deepEqual(nonces('gw-2'), ['', '']);
    assert.deepEqual(nonces('gw-3'), [
      'c10d75c217016435dc0cbed0ef528542',
      '8f0d9fbc6b746d64b706d4c3e15c82eb',
    ]);
    assert.deepEqual(parties.associations(), [
      { device: 'gw-2', gateway: 'gw-1' },
      { device: 'urn:dev:deep:1', gateway: 'gw-2' },
      { device: 'urn:dev:lwm2m:1', gateway: 'gw-1' },
      { device: 'urn:dev:ops:1', gateway: 'gw-1' },
      { device: 'urn:dev:ops:2', gateway: 'gw-1' },
      { device: 'urn:dev:ops:3', gateway: 'gw-1' },
      { device: 'urn:dev:ops:4', gateway: 'gw-3' },
    ]);
    assert.deepEqual(pendingDetaches, [['gw-1', 'urn:dev:ops:4']]);
    assert.deepEqual(
      [parties.recordAlertSequence('gw-1', 7), parties.recordAlertSequence('gw-1', 8)],
      [false, true],
    );
  });

  test('alerts, results and assignments are read', (t) => {
    const { records } = opened(t, releasedState(t, 'headend'));
    const alerts = records.alerts(100).toReversed();
    assert.deepEqual(
      alerts.map(({ number, kind, gateway, device }) => [number, kind, gateway, device]),
      [
        [1, 'DeviceAttach', 'gw-1', 'urn:dev:ops:1'],
        [2, 'DeviceAttach', 'gw-1', 'urn:dev:ops:2'],
        [3, 'DeviceAttach', 'gw-1', 'urn:dev:ops:3'],
        [4, 'DeviceAttach', 'gw-1', 'urn:dev:ops:4'],
        [5, 'DeviceAttach', 'gw-1', 'urn:dev:lwm2m:1'],
        [6, 'DeviceAttach', 'gw-1', 'gw-2'],
        [7, 'DeviceAttach', 'gw-2', 'urn:dev:deep:1'],
        [8, 'CommandFanout', 'gw-1', undefined],
        [9, 'DeviceTrigger', 'gw-1', undefined],
        [10, 'ImageOperation', 'gw-1', undefined],
        [11, 'ImageOperation', 'gw-1', undefined],
        [12, 'LocationUpdate', 'gw-3', 'urn:dev:ops:4'],
        [13, 'DeviceAttach', 'gw-3', 'urn:dev:ops:4'],
      ],
    );
    assert.deepEqual(alerts[11], {
      number: 12,
      at: '2026-11-28T15:24:56.470Z',
      kind: 'LocationUpdate',
      gateway: 'gw-3',
      device: 'urn:dev:ops:4',
      body: { address: 'coap://127.0.0.1:46031', before: 'gw-1' },
    });
    assert.deepEqual(alerts[4]?.body, {
      mode: 2,
      bootstrap: 'local',
      manufacturer: 'Maker & Sons',
      model: 'T1',
    });
    assert.deepEqual(records.result('CommandFanout', 'gw-1', 'label'), {
      at: '2026-11-28T15:24:53.016Z',
      kind: 'CommandFanout',
      gateway: 'gw-1',
      name: 'label',
      correlator: '45ffe1416ea9853f',
      result:
        '<CampaignResult Total="2" Done="1" Failed="1" Pending="0"><Group Status="200" Commands="200" Count="1"/><Group Status="404" Commands="" Count="1"><Device ID="urn:dev:ops:nobody"/></Group></CampaignResult>',
    });
    assert.deepEqual(
      (['DeviceTrigger', 'ImageOperation'] as const).flatMap((kind) =>
        records.results(kind).map(({ name }) => name),
      ),
      ['morning', 'loaded', 'late'],
    );
    assert.deepEqual(records.assignments(), [{ device: 'urn:dev:ops:9', gateway: 'gw-2' }]);
    records.addAlert('DeviceDetach', 'gw-1', 'urn:dev:ops:3', {});
    assert.equal(records.alerts(1)[0]?.number, 14, 'numbers go on');
  });

  test('later steps add tables, and 0.1.0 finds a copy of its own state', (t) => {
    const file = releasedState(t, 'headend');
    const before = shapeOf(file);
    assert.deepEqual([before.version, before.applicationId], [releasedVersion, 0]);
    openDatabase(file, headendSchema).close();
    const after = shapeOf(file);
    assert.deepEqual([after.version, after.integrity], [headendSchema.steps.length, 'ok']);
    assertReleasedTables(t, headendSchema, file);
    assert.deepEqual(shapeOf(`${file}.version-${releasedVersion}`), { ...before, integrity: 'ok' });
  });
});

for (const version of earlierVersions)
  test(`a state of version ${version} is migrated to the latest schema`, (t) => {
    const file = earlierState(t, version, [
      "INSERT INTO party VALUES ('gw-1', x'01', x'02', NULL, 7), ('urn:dev:ops:1', x'', x'', 'gw-1', 0)",
    ]);
    const { parties, records, pendingDetaches } = opened(t, file);
    assert.deepEqual(parties.associations(), [{ device: 'urn:dev:ops:1', gateway: 'gw-1' }]);
    assert.deepEqual(
      [parties.recordAlertSequence('gw-1', 7), parties.recordAlertSequence('gw-1', 8)],
      [false, true],
    );
    assert.deepEqual([pendingDetaches, records.alerts(10), records.assignments()], [[], [], []]);
    assert.ok(existsSync(`${file}.version-${version}`), 'the way back');
    assertReleasedTables(t, headendSchema, file);
  });

test('a new state has only the tables of a head-end: those of 0.1.0 in their form, and later ones', (t) => {
  const file = freshState(t);
  openDatabase(file, headendSchema).close();
  const { tables, version, applicationId } = shapeOf(file);
  assert.deepEqual(Object.keys(tables), [
    'accepted_order',
    'alert_epoch',
    'alert_gone',
    'alert_sender',
    'assignment',
    'departure',
    'departure_gateway',
    'enrolment',
    'enrolment_code',
    'enrolment_gateway',
    'enrolment_renewal',
    'gateway_problem',
    'handover',
    'history_of_gateway',
    'history_of_path',
    'latest_of_gateway',
    'latest_value',
    'operation_result',
    'order_correlator',
    'ordered_observation',
    'party',
    'pending_detach',
    'proved_way',
    'received_alert',
    'replacement',
    'set_aside',
    'triggered_session',
    'unreachable',
    'value_history',
  ]);
  assert.deepEqual([version, applicationId], [headendSchema.steps.length, 0x50734845]);
  assertReleasedTables(t, headendSchema, file);
});
