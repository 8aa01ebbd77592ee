import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Telemetry, telemetryLimits } from '../../../src/gateway/modes/telemetry.ts';
import type { Reporting } from '../../../src/gateway/northbound/telemetry-reports.ts';
import type { ObservationState, ObservationWish } from '../../../src/gateway/southbound/observer.ts';
import { Observations } from '../../../src/gateway/store/observations.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import type { DeviceRecord } from '../../../src/mo/device-record.ts';
import type { ObservationOrder } from '../../../src/mo/observation-order.ts';
import type { DeviceValue } from '../../../src/mo/telemetry-report.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { FailingDisk } from '../store/failing-disk.ts';

const path = '/3303/0/5700';
const order = (more: Partial<ObservationOrder> = {}): ObservationOrder => ({
  name: 'o',
  server: 'dm',
  targets: { named: new Set(), conditions: [] },
  paths: [path],
  attributes: { pmax: 60 },
  period: 60,
  count: 0,
  lifetime: 0,
  ...more,
});

/** Observations of clients that are simulated, with an observer that notes what is wished. */
function rig(database = openDatabase(':memory:', gatewaySchema)) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const records = new Map<string, DeviceRecord>();
  const wishes = new Map<string, readonly ObservationWish[]>();
  const states = new Map<string, ObservationState>();
  const told: (DeviceValue & Pick<Reporting, 'server' | 'name'>)[] = [];
  const denied = new Set<string>();
  const groups = new Map<string, string[]>();
  const observations = new Observations(database);
  const telemetry = new Telemetry({
    database,
    observations,
    reports: {
      add: ({ server, name }, values) => told.push(...values.map((each) => ({ ...each, server, name }))),
    },
    observer: {
      wish: (device, list) => void wishes.set(device, list),
      stateOf: (device) => states.get(device) ?? { state: 'waiting' },
    },
    manage: async () => [],
    choice: () => ({
      records: () => records.values(),
      record: (id) => records.get(id),
      mayRead: () => true,
      members: (id) => groups.get(id),
      leaves: ({ model = '' }) => ({ Mod: model }),
    }),
    mayActOn: (server, device) => !denied.has(`${server} ${device}`),
    record: (id) => records.get(id),
    ownServer: 'dm',
    clock,
    events,
  });
  const attach = (deviceId: string, more: Partial<DeviceRecord> = {}) => {
    records.set(deviceId, {
      ...{ deviceId, state: 'attached', mode: 2, origin: 'manual', address: '', lastSeen: 0 },
      ...{ protocol: 'LwM2M', isGateway: false, ...more },
    });
    telemetry.attached(deviceId);
  };
  const start = (one: ObservationOrder) => {
    telemetry.record(one);
    telemetry.launch(one);
  };
  return {
    ...{ clock, events, records, wishes, states, told, denied, groups, observations, telemetry, database },
    ...{ attach, start },
    wished: (device: string) => wishes.get(device)?.map(({ name }) => name),
  };
}

test('devices that are attached are observed, those that attach later too, and those that leave no more', async () => {
  const { telemetry, attach, start, wishes, wished, records } = rig();
  attach('a');
  start(order());
  await turn();
  assert.deepEqual(wishes.get('a'), [{ name: 'o', paths: [path], attributes: { pmax: 60 } }]);
  attach('b');
  assert.deepEqual(wished('b'), ['o']);
  records.delete('a');
  telemetry.detached('a');
  assert.deepEqual([wished('a'), telemetry.summary], [[], { observations: 1, devices: 1 }]);
  telemetry.stop();
});

test('targets: by name, by group, by condition; a device that does not fit any more is dropped', async () => {
  const { telemetry, attach, start, wished, groups, clock } = rig();
  for (const id of ['a', 'b', 'c']) attach(id, { model: id === 'c' ? 'T2' : 'T1' });
  groups.set('g', ['b']);
  start(order({ name: 'named', targets: { named: new Set(['a']), conditions: [] } }));
  start(order({ name: 'grouped', targets: { named: new Set(), group: 'g', conditions: [] } }));
  start(order({ name: 'fitting', targets: { named: new Set(), conditions: [['Mod', 'T2']] } }));
  await turn();
  assert.deepEqual(['a', 'b', 'c'].map(wished), [['named'], ['grouped'], ['fitting']]);
  // Its record has changed.
  attach('c', { model: 'T1' });
  assert.deepEqual(wished('c'), []);
  // Groups are read again in a while.
  groups.set('g', ['a']);
  clock.advance(300_000);
  await turn();
  assert.deepEqual(['a', 'b'].map(wished), [['named', 'grouped'], []]);
  telemetry.stop();
});

const behind = (gateway: string) =>
  `it is behind ${gateway}: order the same observation at ${gateway}, in its own GwTelemetry; sessions with ${gateway} go through this gateway`;

test('who cannot be observed is counted with the reason: behind a child, without the right, without a path, refused by the client', async () => {
  const { telemetry, attach, start, states, denied } = rig();
  attach('here');
  attach('behind', { via: 'gw-2' });
  attach('deep', { via: 'gw-2/gw-3' });
  attach('forbidden');
  attach('stubborn');
  attach('child', { isGateway: true, protocol: 'OMA-DM' });
  denied.add('dm forbidden');
  states.set('here', { state: 'observing' });
  states.set('stubborn', { state: 'refused', reason: 'the client answers 4.05' });
  start(order());
  start(
    order({
      name: 'other',
      paths: ['/DevInfo/Man'],
      targets: { named: new Set(['here', 'away']), conditions: [] },
    }),
  );
  await turn();
  const { state, observed, waiting, refusals } = telemetry.counts('o');
  assert.deepEqual([state, observed, waiting], [1, 1, 0]);
  assert.deepEqual(Object.fromEntries(refusals), {
    behind: behind('gw-2'),
    deep: behind('gw-3'),
    forbidden: 'dm has no right to Exec at its record',
    stubborn: 'the client answers 4.05',
  });
  const other = telemetry.counts('other');
  assert.deepEqual([other.observed, other.waiting, [...other.refusals.keys()]], [0, 1, ['here']]);
  telemetry.stop();
});

test('the right is asked again: a device whose server lost it is dropped', async () => {
  const { telemetry, attach, start, wished, denied, clock } = rig();
  attach('a');
  start(order());
  await turn();
  denied.add('dm a');
  clock.advance(300_000);
  await turn();
  assert.deepEqual(wished('a'), []);
  telemetry.stop();
});

test('values go to the server that ordered them; those of an observation that has ended to nobody', async () => {
  const { telemetry, attach, start, told } = rig();
  attach('a');
  start(order());
  start(order({ name: 'p', server: 'dm-2' }));
  await turn();
  const value = { path, value: 21.5, at: 1 };
  telemetry.values('a', 'p', [value]);
  telemetry.values('stranger', 'p', [value]);
  assert.equal(telemetry.cancel('p'), 200);
  telemetry.values('a', 'p', [value]);
  assert.deepEqual(told, [{ device: 'a', ...value, server: 'dm-2', name: 'p' }]);
  assert.equal(telemetry.counts('p').state, 3);
  telemetry.stop();
});

test('what a client sends unasked goes once to each server whose observation covers it, else to the own server', async () => {
  const { telemetry, attach, start, told } = rig();
  attach('a');
  start(order({ name: 'x', server: 'dm-2', paths: ['/3303'] }));
  start(order({ name: 'y', server: 'dm-2', paths: [path] }));
  await turn();
  telemetry.values('a', undefined, [
    { path, value: 1, at: 1 },
    { path: '/33030/0/1', value: 2, at: 1 },
  ]);
  assert.deepEqual(
    told.map(({ server, value }) => [server, value]),
    [
      ['dm-2', 1],
      ['dm', 2],
    ],
  );
  telemetry.stop();
});

test('after a restart observations go on with what is left of their lifetime, and end with it', async () => {
  const first = rig();
  first.attach('a');
  first.start(order({ lifetime: 100 }));
  first.start(order({ name: 'stopped' }));
  first.telemetry.cancel('stopped');
  first.clock.advance(40_000);
  first.telemetry.stop();
  assert.equal(first.clock.timers, 0, 'no timer is left');
  const second = rig(first.database);
  second.attach('a');
  second.telemetry.resume();
  await turn();
  assert.deepEqual(second.wished('a'), ['o']);
  assert.equal(second.telemetry.counts('stopped').state, 3);
  second.clock.advance(59_000);
  assert.equal(second.telemetry.counts('o').state, 1);
  second.clock.advance(1000);
  await turn();
  assert.deepEqual([second.telemetry.counts('o').state, second.wished('a')], [2, []]);
  second.telemetry.stop();
});

test('the end of a lifetime is stored again when the disk does not take it', async () => {
  using disk = new FailingDisk();
  const { telemetry, start, clock, observations } = rig();
  start(order({ lifetime: 1 }));
  disk.failAfter(0, { staysFull: true });
  clock.advance(1000);
  await turn();
  assert.equal(telemetry.counts('o').state, 1);
  disk.mend();
  clock.advance(120_000);
  await turn();
  assert.equal(telemetry.counts('o').state, 2);
  assert.equal(observations.all()[0]?.state, 2);
  telemetry.stop();
});

test('with the account of a server its observations end, also those that a stopped gateway had', async () => {
  const { telemetry, start, attach, wished, observations } = rig();
  attach('a');
  start(order());
  start(order({ name: 'other', server: 'dm-2' }));
  await turn();
  telemetry.endOf((server) => server === 'dm-2');
  assert.deepEqual(wished('a'), ['o']);
  assert.deepEqual(
    observations.all().map(({ order: { name }, state }) => [name, state]),
    [
      ['o', 1],
      ['other', 3],
    ],
  );
  telemetry.stop();
});

test('as many observations run as the bound says', () => {
  const { telemetry, start } = rig();
  for (let n = 0; n < telemetryLimits.running; n++) start(order({ name: `o${n}` }));
  assert.throws(() => telemetry.admit(order({ name: 'more' })), { code: 'full' });
  assert.throws(() => telemetry.admit(order({ name: 'o1' })), { code: 'conflict' });
  telemetry.stop();
});

test('an observation of thousands of devices is set up a few in each turn', async () => {
  const { telemetry, start, records, attach, wishes } = rig();
  for (let n = 0; n < 1000; n++) attach(`d${n}`);
  start(order());
  assert.ok(wishes.size <= telemetryLimits.perTurn);
  while (wishes.size < records.size) await turn();
  telemetry.stop();
});
