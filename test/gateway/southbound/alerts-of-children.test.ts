import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openDatabase } from '../../../src/base/open-database.ts';
import { StoredBranch } from '../../../src/dm/stored-branch.ts';
import { Nodes } from '../../../src/dm/stored-nodes.ts';
import { Reports } from '../../../src/gateway/northbound/reports.ts';
import { ChildScope } from '../../../src/gateway/rights/child-scope.ts';
import { Associations } from '../../../src/gateway/southbound/associations.ts';
import { Children } from '../../../src/gateway/southbound/children.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { childShare, Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { deviceAttachAlert, deviceDetachAlert, gatewayFaultAlert } from '../../../src/mo/gateway-alerts.ts';
import { gwConfig, gwConfigDefaults } from '../../../src/mo/gw-config.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { freshState, testSealing } from '../../state-files.ts';

const limit = 40;
const names = ['gw-2', 'gw-3', 'gw-4', 'gw-5', 'gw-6'];

/** A gateway whose uplink is down, so that nothing leaves its outbox. */
function start(file = ':memory:') {
  const database = openDatabase(file, gatewaySchema);
  const events = new EventRecorder();
  const outbox = new Outbox(database, limit);
  const inventory = new Inventory(database, 1000);
  const credentials = new Credentials(database, 1000, testSealing);
  const config = new StoredBranch('GwConfig', gwConfig.root, new Nodes(database));
  for (const node of gwConfigDefaults) config.plant([node.name], node);
  const reports = new Reports(outbox, 'dm.example', () => true);
  const associations = new Associations({
    ...{ database, inventory, credentials, outbox, gwConfig: config, clock: new HandClock(), events },
    reported: () => {},
    leaving: () => {},
    came: () => {},
    gone: () => {},
    removed: () => {},
  });
  const children = new Children({
    allowed: new Set(names),
    vocabulary: ownVocabulary,
    associations,
    scope: new ChildScope({ gatewayId: 'gw-1', recordOf: (id) => inventory.get(id), judge: () => {} }),
    events,
    fanoutEnded: () => {},
    faulted: (fault) => reports.fault(`${fault.kind} ${fault.reason.slice(0, 64)}`, fault),
  });
  const tell = (child: string, alert: object) =>
    children.alerted(child, { name: 'Alert', cmdId: '1', data: 1226, items: [], ...alert });
  const attach = (child: string, deviceId: string, more: object = {}) =>
    tell(
      child,
      deviceAttachAlert(ownVocabulary, { sequence: 1, deviceId, mode: 0, bootstrap: 'local', ...more }),
    );
  const detach = (child: string, deviceId: string) =>
    tell(child, deviceDetachAlert(ownVocabulary, { sequence: 1, deviceId, reason: 'left' }));
  const fault = (child: string, reason: string) =>
    tell(child, gatewayFaultAlert(ownVocabulary, { sequence: 1, kind: 'state', reason }));
  const own = (deviceId: string) =>
    associations.attach({
      ...{ deviceId, address: '192.0.2.9', mode: 0, origin: 'local', protocol: 'OMA-DM', isGateway: false },
    } as Parameters<Associations['attach']>[0]);
  /** Sends alerts of ever new devices until one is refused. Returns how many were taken. */
  const flood = (child: string) => {
    for (let taken = 0; ; taken++) {
      const status = attach(child, `${child}-${taken}`);
      if (status !== 200) {
        assert.equal(status, 420);
        return taken;
      }
    }
  };
  return { database, events, outbox, inventory, associations, attach, detach, fault, own, flood };
}

describe('the alerts of a child gateway, while the uplink is down', () => {
  test('a hostile child fills its share; the gateway itself and other children find room', () => {
    const { outbox, inventory, events, attach, own, flood } = start();
    assert.equal(flood('gw-2'), limit * childShare.one);
    for (let again = 0; again < 100; again++) assert.equal(attach('gw-2', `more-${again}`), 420);
    assert.equal(inventory.get('more-1'), undefined, 'what is refused is not recorded either');
    assert.equal(attach('gw-3', 'honest'), 200);
    own('of-the-gateway');
    assert.equal(outbox.size, limit * childShare.one + 2);
    assert.equal(outbox.dropped, 0);
    assert.equal(outbox.refused, 101);
    assert.deepEqual(
      events.all.filter(({ name }) => name === 'hierarchy.refused').map(({ fields }) => fields),
      [{ child: 'gw-2', reason: 'too many alerts of child gateways wait for the DM server' }],
      'it is said once',
    );
  });

  test('all children together leave a quarter to the gateway itself', () => {
    const { outbox, own, flood } = start();
    for (const child of names) flood(child);
    assert.equal(outbox.size, limit * childShare.all);
    for (let at = 0; at < limit * (1 - childShare.all); at++) own(`own-${at}`);
    assert.deepEqual([outbox.size, outbox.dropped], [limit, 0]);
  });

  test('few large alerts count by their bytes', () => {
    const { outbox, attach, fault } = start();
    const large = { manufacturer: 'M'.repeat(128), model: 'm'.repeat(128) };
    let taken = 0;
    while (fault('gw-2', `${taken} ${'r'.repeat(2000)}`) === 200) taken++;
    assert.ok(taken > 0 && taken < limit * childShare.one, `${taken} faults`);
    assert.equal(outbox.size, taken);
    assert.equal(attach('gw-3', 'honest', large), 200);
  });

  test('an alert that takes the place of an earlier one of its device needs no more room', () => {
    const { detach, attach, flood } = start();
    flood('gw-2');
    assert.equal(detach('gw-2', 'gw-2-0'), 420, 'a detach comes after the attach, and needs room');
    assert.equal(attach('gw-2', 'gw-2-0', { manufacturer: 'Maker' }), 200, 'nothing new to report');
  });

  test('what was delivered makes room, and the next refusal is said anew', () => {
    const { outbox, events, attach, flood } = start();
    flood('gw-2');
    outbox.remove(outbox.peek(1)[0]!.sequence);
    assert.equal(attach('gw-2', 'next'), 200);
    assert.equal(attach('gw-2', 'after'), 420);
    assert.equal(events.count('hierarchy.refused'), 2);
  });

  test('the end of a child is reported for each device behind it, whatever its share', () => {
    const { outbox, associations, attach, own, flood } = start();
    own('gw-2');
    const taken = flood('gw-2');
    assert.ok(associations.detach('gw-2', 'left'));
    assert.equal(outbox.peek(limit).filter(({ kind }) => kind === 'device-detach').length, taken + 1);
    assert.equal(attach('gw-2', 'again'), 420, 'but it counts');
  });

  test('the share holds after a restart, and for alerts that wait with a new number', async (t) => {
    const file = freshState(t);
    {
      const { database, outbox, flood } = start(file);
      flood('gw-2');
      for (const { sequence } of outbox.peek(limit)) outbox.requeue(sequence);
      await database[Symbol.asyncDispose]();
    }
    const { database, attach } = start(file);
    assert.equal(attach('gw-2', 'more'), 420);
    assert.equal(attach('gw-3', 'honest'), 200);
    await database[Symbol.asyncDispose]();
  });
});
