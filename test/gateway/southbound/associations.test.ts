import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Database, transaction } from '../../../src/base/database.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { StoredBranch } from '../../../src/dm/stored-branch.ts';
import { Nodes } from '../../../src/dm/stored-nodes.ts';
import { ChildScope } from '../../../src/gateway/rights/child-scope.ts';
import {
  Associations,
  type AttachedDevice,
  type PresenceBody,
} from '../../../src/gateway/southbound/associations.ts';
import { Children } from '../../../src/gateway/southbound/children.ts';
import { Claims } from '../../../src/gateway/southbound/claims.ts';
import { shownRecords } from '../../../src/gateway/southbound/presence.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { deviceAttachAlert, devicePresenceAlert } from '../../../src/mo/gateway-alerts.ts';
import { gwConfig, gwConfigDefaults } from '../../../src/mo/gw-config.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { testSealing } from '../../state-files.ts';
import { turn } from '../../wire/coap/wire.ts';

function start() {
  const database = openDatabase(':memory:', gatewaySchema);
  const clock = new HandClock();
  const events = new EventRecorder();
  const outbox = new Outbox(database, 100);
  const credentials = new Credentials(database, 10, testSealing);
  const inventory = new Inventory(database, 10);
  const config = new StoredBranch('GwConfig', gwConfig.root, new Nodes(database));
  for (const node of gwConfigDefaults) config.plant([node.name], node);
  const leaving: string[] = [];
  const associations = new Associations({
    database,
    inventory,
    credentials,
    outbox,
    gwConfig: config,
    clock,
    events,
    reported: () => {},
    leaving: (deviceId) => void leaving.push(deviceId),
    came: () => {},
    gone: () => {},
    removed: () => {},
  });
  const attach = (deviceId: string, more: Partial<AttachedDevice> = {}) => {
    const credential = {
      deviceId,
      clientName: deviceId,
      clientSecret: 's',
      clientNonce: new Uint8Array(),
      serverSecret: 's',
      serverNonce: new Uint8Array(),
      origin: 'local',
      attached: false,
    } as const;
    credentials.put(credential);
    associations.attach({
      deviceId,
      credential,
      mode: 0,
      origin: 'local',
      protocol: 'OMA-DM',
      address: 'coap://192.0.2.1',
      isGateway: false,
      ...more,
    });
  };
  const kinds = () => outbox.peek(10).map(({ kind, deviceId }) => `${kind} ${deviceId}`);
  const bodies = () =>
    outbox
      .peek(10)
      .map(({ kind, deviceId, body }) => [kind, deviceId, (JSON.parse(body) as { via?: string }).via]);
  /** What was reported of the presence of devices. */
  const presence = () =>
    outbox
      .peek(10)
      .filter(({ kind }) => kind === 'device-presence')
      .map(({ deviceId, body }) => {
        const { state, reason } = JSON.parse(body) as PresenceBody;
        return [deviceId, state, reason];
      });
  return {
    database,
    associations,
    leaving,
    inventory,
    bodies,
    clock,
    events,
    credentials,
    config,
    attach,
    kinds,
    presence,
  };
}

/** Lets the database grow no further, as on a full disk. Returns how to end that. */
function fill(database: Database): () => void {
  const { page_count: pages } = database.prepare('PRAGMA page_count').get() as { page_count: number };
  database.prepare(`PRAGMA max_page_count = ${pages}`).get();
  return () => database.prepare('PRAGMA max_page_count = 1000000').get();
}

// conforms: GW-6
test('a silent device becomes unreachable and keeps its credential; its next message makes it attached again; each change is reported once', () => {
  const { associations, inventory, credentials, events, attach, presence } = start();
  attach('a');
  assert.equal(associations.missing('a', 'nothing answers'), true);
  assert.equal(associations.missing('a', 'nothing answers'), false, 'the same cause is told once');
  assert.deepEqual(
    [inventory.get('a')?.state, inventory.get('a')?.reason],
    ['unreachable', 'nothing answers'],
  );
  assert.deepEqual(presence(), [['a', 'unreachable', 'nothing answers']]);
  assert.equal(credentials.get('a')?.attached, true);
  associations.missing('a', 'another device answers');
  assert.deepEqual(presence(), [['a', 'unreachable', 'another device answers']], 'the latest reason');
  assert.equal(associations.heard('a', undefined), true);
  assert.deepEqual([inventory.get('a')?.state, inventory.get('a')?.reason], ['attached', undefined]);
  assert.deepEqual(presence(), [['a', 'attached', undefined]]);
  assert.deepEqual([events.count('device.unreachable'), events.count('device.reached')], [2, 1]);
});

// conforms: GW-6
test('an unreachable device that attaches again is reported as reached, not as new', () => {
  const { associations, credentials, inventory, events, attach, kinds, presence } = start();
  attach('a');
  associations.missing('a', 'nothing answers');
  attach('a', { credential: credentials.get('a')! });
  assert.equal(inventory.get('a')?.state, 'attached');
  assert.deepEqual(presence(), [['a', 'attached', undefined]]);
  assert.deepEqual([events.count('device.attached'), events.count('device.reached')], [1, 1]);
  assert.deepEqual(kinds(), ['device-attach a', 'device-presence a']);
});

// conforms: GW-6
test('silence or a message of a detached device changes nothing', () => {
  const { associations, inventory, attach, presence } = start();
  attach('a');
  associations.detach('a', 'left');
  assert.equal(associations.missing('a', 'nothing answers'), false);
  assert.equal(associations.heard('a', undefined), false);
  assert.deepEqual([inventory.size, presence()], [0, []]);
});

test('a message writes nothing to the database; a new address is written at once; the times of all messages are written together', () => {
  const { database, associations, inventory, credentials, clock, attach } = start();
  const writes = () => Number(database.prepare('SELECT total_changes() AS n').get()?.n);
  const stored = () =>
    database
      .prepare('SELECT address, heard_on, last_seen FROM device NATURAL JOIN device_presence')
      .all()
      .map((row) => Object.values(row));
  const here = { address: 'coap://192.0.2.1', heardOn: '192.0.2.9' };
  attach('a', { heardOn: '192.0.2.9' });
  const [[, , first] = []] = stored();
  const before = writes();
  clock.advance(5000);
  for (let message = 0; message < 100; message++) associations.heard('a', here);
  const { credential: _, ...same } = { ...inventory.get('a')!, credential: undefined };
  associations.attach({ ...same, credential: credentials.get('a')! });
  assert.equal(writes(), before, 'not even by the end of a session that changed nothing');
  assert.equal(inventory.get('a')?.lastSeen, Number(first) + 5000, 'but it is known');
  associations.heard('a', { ...here, address: 'coap://192.0.2.2:7' });
  assert.deepEqual(stored(), [['coap://192.0.2.2:7', '192.0.2.9', Number(first) + 5000]]);
  associations.heard('a', { address: 'coap://192.0.2.2:7', heardOn: '198.51.100.9' });
  assert.deepEqual(
    stored(),
    [['coap://192.0.2.2:7', '198.51.100.9', Number(first) + 5000]],
    'the socket too',
  );
  clock.advance(5000);
  associations.heard('a', undefined);
  assert.equal(inventory.writeHeard(), true);
  assert.equal(inventory.writeHeard(), false, 'once');
  assert.deepEqual(stored(), [['coap://192.0.2.2:7', '198.51.100.9', Number(first) + 10_000]]);
});

test('if the disk is full, the record in memory stays unchanged; with room again the change is stored and reported', () => {
  const { database, associations, inventory, attach, presence } = start();
  attach('a');
  const makeRoom = fill(database);
  const reason = 'nothing answers '.repeat(500);
  assert.throws(() => associations.missing('a', reason), { code: 'storage' });
  assert.deepEqual([inventory.get('a')?.state, inventory.get('a')?.reason], ['attached', undefined]);
  makeRoom();
  assert.equal(associations.missing('a', reason), true);
  assert.deepEqual(presence(), [['a', 'unreachable', reason]]);
});

// conforms: GW-25
test('alerts that GwConfig switches off are not sent', () => {
  const { associations, attach, config, kinds } = start();
  config.replace(['DetachAlert'], { format: 'bool', value: 'false' });
  config.replace(['PresenceAlert'], { format: 'bool', value: 'false' });
  attach('a');
  associations.missing('a', 'nothing answers');
  assert.equal(associations.detach('a', 'left'), true);
  assert.equal(associations.detach('a', 'left'), false, 'once');
  config.replace(['AttachAlert'], { format: 'bool', value: 'false' });
  attach('b');
  assert.deepEqual(kinds(), ['device-attach a']);
});

describe('devices behind a child gateway', () => {
  const attached = (deviceId: string, isGateway = false) =>
    ({ deviceId, mode: 0, bootstrap: 'local', ...(isGateway && { isGateway }) }) as const;

  // conforms: GW-22
  test('a device behind a child gateway is reported once, and is detached with the child', () => {
    const { associations, inventory, attach, bodies } = start();
    attach('gw-2');
    associations.attachBehind('gw-2/gw-3', attached('deep'));
    associations.attachBehind('gw-2/gw-3', attached('deep'));
    assert.equal(inventory.get('deep')?.via, 'gw-2/gw-3');
    associations.detachBehind('gw-9', 'deep', 'left');
    assert.ok(inventory.get('deep'), 'of another child');
    associations.detach('gw-2', 'left');
    assert.equal(inventory.get('deep'), undefined);
    assert.deepEqual(bodies(), [
      ['device-attach', 'gw-2', undefined],
      ['device-attach', 'deep', 'gw-2/gw-3'],
      ['device-detach', 'gw-2', undefined],
      ['device-detach', 'deep', 'gw-2/gw-3'],
    ]);
  });

  test('a child that tells of ever more devices leaves room for those of this gateway and of other children', () => {
    const { associations, inventory, attach, database } = start();
    attach('gw-2');
    const behind = (deviceId: string, child = 'gw-2') => associations.attachBehind(child, attached(deviceId));
    for (let at = 0; at < 8; at++) behind(`invented:${at}`);
    assert.throws(() => behind('invented:8'), { code: 'full' });
    behind('invented:7');
    attach('honest');
    assert.ok(inventory.get('honest'));
    associations.detachBehind('gw-2', 'invented:0', 'left');
    assert.throws(() =>
      transaction(database, () => {
        behind('undone');
        throw new Error('a write failed');
      }),
    );
    behind('invented:8');
    assert.throws(() => behind('invented:9'), { code: 'full' });
    associations.detach('gw-2', 'left');
    assert.equal(inventory.countBehind('gw-2'), 0);
  });

  test('a device that moved to a child stays in the inventory when the server detaches it from this gateway', () => {
    const { associations, inventory, credentials, attach } = start();
    attach('moves');
    associations.attachBehind('gw-2', attached('moves'));
    associations.remove('moves');
    assert.deepEqual([inventory.get('moves')?.via, credentials.get('moves')], ['gw-2', undefined]);
  });

  test('a device that attaches to this gateway itself is no longer behind the child', () => {
    const { associations, inventory, attach, bodies } = start();
    associations.attachBehind('gw-2', attached('moves'));
    attach('moves');
    assert.equal(inventory.get('moves')?.via, undefined);
    associations.detachBehind('gw-2', 'moves', 'expired');
    assert.ok(inventory.get('moves'));
    assert.deepEqual(
      bodies().map(([kind, , via]) => [kind, via]),
      [['device-attach', undefined]],
      'what is known of one device now says all that was told before',
    );
  });

  // conforms: GW-22
  test('a device is unreachable if its child gateway reports it, or while the child itself is unreachable; only the first is reported', () => {
    const { associations, inventory, attach, presence } = start();
    const shown = () => {
      const { state, reason } = shownRecords(inventory).get('deep')!;
      return [state, reason];
    };
    attach('gw-2', { isGateway: true });
    associations.attachBehind('gw-2/gw-3', attached('deep'));
    const told = { deviceId: 'deep', state: 'unreachable', reason: 'nothing answers', lastSeen: 5 } as const;
    associations.presenceBehind('gw-9', told);
    assert.deepEqual(shown(), ['attached', undefined], 'another gateway has no say');
    associations.presenceBehind('gw-2', told);
    associations.presenceBehind('gw-2', told);
    assert.deepEqual(shown(), ['unreachable', 'nothing answers']);
    assert.equal(inventory.get('deep')?.lastSeen, 5);
    associations.presenceBehind('gw-2', { ...told, state: 'attached', lastSeen: 9 });
    associations.missing('gw-2', 'it is off');
    assert.deepEqual(shown(), ['unreachable', 'its gateway gw-2 is unreachable: it is off']);
    associations.heard('gw-2', undefined);
    assert.deepEqual(shown(), ['attached', undefined]);
    assert.deepEqual(presence(), [
      ['deep', 'attached', undefined],
      ['gw-2', 'attached', undefined],
    ]);
  });

  // conforms: GW-22
  test('an alert from a loop of gateways, or from too deep a hierarchy, gets 403', () => {
    const { associations, inventory, events } = start();
    const children = new Children({
      allowed: new Set(['gw-2', 'child']),
      vocabulary: ownVocabulary,
      associations,
      scope: new ChildScope({ gatewayId: 'gw-1', recordOf: (id) => inventory.get(id), judge: () => {} }),
      events,
      fanoutEnded: () => {},
      faulted: () => {},
    });
    const alert = (deviceId: string, via?: string) => ({
      name: 'Alert' as const,
      cmdId: '1',
      ...deviceAttachAlert(ownVocabulary, {
        sequence: 1,
        ...attached(deviceId),
        ...(via !== undefined && { via }),
      }),
      data: 1226,
    });
    assert.equal(children.alerted('gw-2', alert('a', 'gw-3')), 503, 'gw-3 is not attached behind it yet');
    associations.attachBehind('gw-2', attached('gw-3', true));
    associations.attachBehind('gw-2/gw-3', attached('gw-4', true));
    assert.equal(children.alerted('gw-2', alert('a', 'gw-4')), 503, 'gw-4 is behind gw-3');
    associations.attachBehind('gw-2/gw-3/gw-4', attached('gw-5', true));
    assert.equal(children.alerted('gw-2', alert('a', 'gw-3/gw-4/gw-5')), 200);
    const presence = (more: object) => ({
      name: 'Alert' as const,
      cmdId: '1',
      ...devicePresenceAlert(ownVocabulary, {
        sequence: 2,
        deviceId: 'a',
        state: 'unreachable',
        reason: 'it is off',
        lastSeen: 0,
        ...more,
      }),
      data: 1226,
    });
    assert.equal(children.alerted('gw-2', presence({})), 200);
    assert.equal(inventory.get('a')?.reason, 'it is off');
    assert.equal(children.alerted('gw-2', presence({ state: 'asleep' })), 400);
    for (const [deviceId, via] of [
      ['gw-1', undefined],
      ['b', 'gw-3/gw-1'],
      ['gw-3', 'gw-3'],
      ['gw-2', undefined],
      ['c', 'gw-3/gw-4/gw-5/gw-6'],
    ] as const)
      assert.equal(children.alerted('gw-2', alert(deviceId, via)), 403, `${deviceId} ${via}`);
    assert.equal(inventory.size, 4);
    assert.equal(events.count('hierarchy.refused'), 8);
    assert.equal(children.alerted('gw-2', { name: 'Alert', cmdId: '1', data: 1226, items: [] }), undefined);
  });

  /** Children of a gateway, whose devices answer the question whether they are there as `answers` says. */
  function family() {
    const it = start();
    const asked: string[] = [];
    const answers = new Map<string, PromiseWithResolvers<boolean>>();
    const claims = new Claims({
      inventory: it.inventory,
      isThere: ({ deviceId }) => {
        asked.push(deviceId);
        const answer = Promise.withResolvers<boolean>();
        answers.set(deviceId, answer);
        return answer.promise;
      },
      clock: it.clock,
      events: it.events,
    });
    const children = new Children({
      allowed: new Set(['gw-2', 'gw-3']),
      vocabulary: ownVocabulary,
      associations: it.associations,
      scope: new ChildScope({
        gatewayId: 'gw-1',
        recordOf: (deviceId) => it.inventory.get(deviceId),
        judge: (...args) => claims.judge(...args),
      }),
      events: it.events,
      fanoutEnded: () => {},
      faulted: () => {},
    });
    const claim = (child: string, deviceId: string) =>
      children.alerted(child, {
        name: 'Alert',
        cmdId: '1',
        ...deviceAttachAlert(ownVocabulary, { sequence: 1, ...attached(deviceId) }),
        data: 1226,
      });
    const answer = async (deviceId: string, isThere: boolean) => {
      answers.get(deviceId)?.resolve(isThere);
      await turn();
    };
    return { ...it, children, claim, answer, asked };
  }

  // conforms: GW-22
  test('a child that lists a live device of its parent moves nothing: not its record, not its credential, not by a detach', async () => {
    const { attach, inventory, credentials, associations, claim, answer, asked, clock } = family();
    attach('proven');
    const before = inventory.get('proven');
    assert.equal(claim('gw-2', 'proven'), 503, 'it is asked first');
    assert.equal(claim('gw-2', 'proven'), 503);
    await answer('proven', true);
    assert.equal(claim('gw-2', 'proven'), 409);
    associations.detachBehind('gw-2', 'proven', 'left');
    associations.presenceBehind('gw-2', { deviceId: 'proven', state: 'unreachable', lastSeen: 0 });
    assert.deepEqual(inventory.get('proven'), before);
    assert.ok(credentials.get('proven'));
    assert.deepEqual(asked, ['proven'], 'one question, however often the child claims it');
    clock.advance(60_000);
    assert.equal(claim('gw-2', 'proven'), 503, 'later it is asked anew');
    await answer('proven', false);
    assert.equal(claim('gw-2', 'proven'), 200, 'it has moved behind the child');
    assert.equal(inventory.get('proven')?.via, 'gw-2');
  });

  // conforms: GW-22
  test('a child does not take the device of another child, unless that one does not reach it', async () => {
    const { attach, inventory, claim, answer, associations } = family();
    attach('gw-2', { isGateway: true });
    assert.equal(claim('gw-2', 'deep'), 200);
    assert.equal(claim('gw-3', 'deep'), 503);
    await answer('deep', true);
    assert.equal(claim('gw-3', 'deep'), 409);
    associations.detachBehind('gw-3', 'deep', 'left');
    assert.equal(inventory.get('deep')?.via, 'gw-2');
    associations.missing('gw-2', 'it is off');
    assert.equal(claim('gw-3', 'deep'), 200, 'the whole child is unreachable');
  });

  test('questions for devices that one child claims are bounded', () => {
    const { attach, claim, asked } = family();
    for (let number = 0; number < 10; number++) attach(`d${number}`);
    for (let number = 0; number < 10; number++) assert.equal(claim('gw-2', `d${number}`), 503);
    assert.equal(asked.length, 4);
  });
});

test('a child gateway is detached with all devices behind it in one transaction: all leave, or none', () => {
  const { associations, database, inventory, leaving, events, attach, kinds } = start();
  attach('gw-2', { isGateway: true });
  for (const deviceId of ['a', 'b'])
    associations.attachBehind('gw-2', { deviceId, mode: 0, bootstrap: 'local' });
  const before = kinds();
  database
    .prepare(
      "CREATE TEMP TRIGGER stop BEFORE DELETE ON device WHEN old.device_id = 'b' BEGIN SELECT raise(ABORT, 'stop'); END",
    )
    .run();
  assert.throws(() => associations.detach('gw-2', 'left'), /stop/);
  assert.deepEqual([inventory.size, kinds(), events.count('device.detached')], [3, before, 0]);
  database.prepare('DROP TRIGGER stop').run();
  assert.equal(associations.detach('gw-2', 'left'), true);
  assert.deepEqual([inventory.size, events.count('device.detached')], [0, 3]);
  assert.deepEqual(leaving.slice(-3).toSorted(), ['a', 'b', 'gw-2']);
});
