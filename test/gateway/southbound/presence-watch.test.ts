import assert from 'node:assert/strict';
import { test } from 'node:test';
import { failuresOf } from '../../../src/base/background.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { PosternError } from '../../../src/base/errors.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { StoredBranch } from '../../../src/dm/stored-branch.ts';
import { Nodes } from '../../../src/dm/stored-nodes.ts';
import { Arrivals } from '../../../src/gateway/southbound/arrivals.ts';
import { Associations } from '../../../src/gateway/southbound/associations.ts';
import { DeviceAddresses } from '../../../src/gateway/southbound/device-addresses.ts';
import {
  type Finding,
  missing,
  proven,
  type SilenceOf,
  silences,
  unproven,
} from '../../../src/gateway/southbound/presence.ts';
import { PresenceWatch } from '../../../src/gateway/southbound/presence-watch.ts';
import { Credentials } from '../../../src/gateway/store/credentials.ts';
import { Inventory } from '../../../src/gateway/store/inventory.ts';
import { Outbox } from '../../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import type { DeviceRecord } from '../../../src/mo/device-record.ts';
import { gwConfig, gwConfigDefaults } from '../../../src/mo/gw-config.ts';
import { coapUri } from '../../../src/wire/coap/uri.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { testSealing } from '../../state-files.ts';
import { turn } from '../../wire/coap/wire.ts';

const minute = 60_000;
const hour = 60 * minute;
const seed = 7;

const record = (deviceId: string, more: Partial<DeviceRecord> = {}): DeviceRecord => ({
  deviceId,
  state: 'attached',
  mode: 0,
  origin: 'local',
  address: `coap://192.0.2.1:${1000 + deviceId.length}`,
  lastSeen: 0,
  protocol: 'OMA-DM',
  isGateway: false,
  ...more,
});

interface Setup {
  readonly lockedOut?: (deviceId: string) => string | undefined;
  readonly configured?: number;
  readonly registrations?: Readonly<Record<string, NonNullable<SilenceOf['registration']>>>;
  readonly answer?: (deviceId: string) => Promise<Finding> | Finding;
}

function start(records: readonly DeviceRecord[], setup: Setup = {}) {
  const {
    lockedOut = () => undefined,
    configured,
    registrations = {},
    answer = () => missing('nothing answers'),
  } = setup;
  const database = openDatabase(':memory:', gatewaySchema);
  const clock = new HandClock();
  const events = new EventRecorder();
  const inventory = new Inventory(database, 20_000);
  for (const each of records) inventory.put(each);
  const config = new StoredBranch('GwConfig', gwConfig.root, new Nodes(database));
  for (const node of gwConfigDefaults) config.plant([node.name], node);
  const outbox = new Outbox(database, 20_000);
  const credentials = new Credentials(database, 20_000, testSealing);
  const associations = new Associations({
    database,
    inventory,
    credentials,
    outbox,
    gwConfig: config,
    clock,
    events,
    reported: () => {},
    leaving: () => {},
    came: () => {},
    gone: () => {},
    removed: () => {},
  });
  const addresses = new DeviceAddresses();
  addresses.restore(inventory.values());
  /** Devices that were asked, with the minute. */
  const asked: [string, number][] = [];
  const begin = clock.now();
  const watch = new PresenceWatch({
    inventory,
    addresses,
    arrivals: new Arrivals(clock),
    associations,
    ask: async (deviceId) => {
      asked.push([deviceId, Math.floor((clock.now() - begin) / minute)]);
      return await answer(deviceId);
    },
    uriOf: ({ address, port }) => coapUri(address, port),
    lockedOut: ({ deviceId }) => lockedOut(deviceId),
    registrationOf: (deviceId) => registrations[deviceId],
    configured,
    clock,
    entropy: seededEntropy(seed),
    events,
  });
  watch.start();
  /** Moves the clock, from sweep to sweep. */
  const pass = async (milliseconds: number) => {
    for (let left = milliseconds; left > 0; left -= 30_000) {
      clock.advance(Math.min(30_000, left));
      for (let i = 0; i < 6; i++) await turn();
    }
  };
  return { database, clock, events, inventory, outbox, credentials, associations, watch, asked, pass };
}

// conforms: GW-6
test('each kind of device is asked after its own time of silence, and not before', async () => {
  const { asked, pass, watch, clock } = start(
    [
      record('usual'),
      record('gw-2', { isGateway: true }),
      record('over-http', { address: 'http://192.0.2.1' }),
      record('client', { protocol: 'LwM2M', mode: 2 }),
      record('sleeper', { protocol: 'LwM2M', mode: 2 }),
      record('behind', { via: 'gw-2' }),
    ],
    {
      answer: () => unproven,
      registrations: {
        client: { lifetime: 3600, queueMode: false },
        sleeper: { lifetime: 48 * 3600, queueMode: true },
      },
    },
  );
  await pass(12 * hour);
  const first = (deviceId: string) => asked.find(([each]) => each === deviceId)?.[1];
  const between = (deviceId: string, least: number) => {
    const at = first(deviceId) ?? -1;
    assert.ok(at >= least / minute && at <= (least * 1.25) / minute + 1, `${deviceId}: ${at} (seed ${seed})`);
  };
  between('usual', silences.usual);
  between('gw-2', silences.gateway);
  between('client', hour + silences.grace);
  assert.deepEqual(
    [first('over-http'), first('sleeper'), first('behind')],
    [undefined, undefined, undefined],
  );
  watch[Symbol.dispose]();
  assert.equal(clock.timers, 0);
});

// conforms: GW-6
test('a device that does not answer stays attached, keeps its credential, and is asked again at growing intervals', async () => {
  const { asked, pass, inventory, credentials, outbox, events } = start([record('dead')]);
  credentials.put({
    deviceId: 'dead',
    clientName: 'dead',
    clientSecret: 's',
    clientNonce: new Uint8Array(),
    serverSecret: 's',
    serverNonce: new Uint8Array(),
    origin: 'local',
    attached: true,
  });
  await pass(4 * 24 * hour);
  assert.equal(inventory.get('dead')?.state, 'unreachable');
  assert.equal(inventory.get('dead')?.reason, 'nothing answers');
  assert.ok(credentials.get('dead'));
  assert.equal(events.count('device.unreachable'), 1, 'told once in four days');
  assert.deepEqual(
    outbox.peek(10).map(({ kind }) => kind),
    ['device-presence'],
  );
  const gaps = asked.slice(1).map(([, at], n) => at - (asked[n]?.[1] ?? 0));
  assert.ok(gaps[0]! < 20 && gaps.at(-1)! >= 240 && gaps.at(-1)! <= 301, `${gaps} (seed ${seed})`);
});

test('ten thousand silent devices are asked at most 64 at a time, spread over an hour', {
  timeout: 120_000,
}, async () => {
  const devices = Array.from({ length: 10_000 }, (_, at) =>
    record(`d${at}`, { address: `coap://192.0.2.1:${at}` }),
  );
  let [busy, most] = [0, 0];
  const { asked, pass, watch } = start(devices, {
    answer: async () => {
      busy++;
      most = Math.max(most, busy);
      await turn();
      busy--;
      return unproven;
    },
  });
  await pass(silences.usual * 1.25 + minute);
  assert.equal(new Set(asked.map(([id]) => id)).size, 10_000);
  const perMinute = [...Map.groupBy(asked, ([, at]) => at).values()].map((each) => each.length);
  assert.ok(Math.max(...perMinute) < 300, `${Math.max(...perMinute)} in one minute (seed ${seed})`);
  assert.ok(most <= 64, `${most} at a time`);
  watch[Symbol.dispose]();
});

// conforms: GW-6
test('messages that a device sends by itself set its period; messages that the gateway asked for do not', async () => {
  const from = { address: '192.0.2.1', port: 1001, heardOn: '192.0.2.9' };
  const { asked, pass, watch } = start([record('own'), record('asked')], { answer: () => proven });
  for (let round = 0; round < 3; round++) {
    await pass(30 * minute);
    watch.heard('own', { ...from, port: 1 });
    watch.asked('asked');
    watch.heard('asked', { ...from, port: 2 });
  }
  await pass(3 * hour);
  const [device, at] = asked[0] ?? [];
  assert.equal(device, 'own');
  assert.ok(at! >= 180 && at! <= 180 + 24, `${at}: after three periods of 30 minutes (seed ${seed})`);
  assert.equal(
    asked.filter(([id]) => id === 'asked').length,
    0,
    'four hours, as it comes only when it is asked',
  );
});

// conforms: GW-6
test('a device that was heard while it was asked is not missing', async () => {
  const reply = Promise.withResolvers<Finding>();
  const { pass, watch, inventory, events } = start([record('late')], { answer: () => reply.promise });
  await pass(6 * hour);
  watch.heard('late', { address: '192.0.2.1', port: 1004 });
  reply.resolve(missing('nothing answers'));
  await turn();
  assert.equal(inventory.get('late')?.state, 'attached');
  assert.equal(events.count('device.unreachable'), 0);
});

test('the watch continues after an error in a question or in a sweep, and reports the first, tenth and hundredth of each error', async () => {
  let fail = true;
  const { pass, asked, events, inventory } = start([record('a'), record('bb')], {
    answer: (deviceId) => {
      if (fail && deviceId === 'a') throw new PosternError('internal', 'broken');
      return missing('nothing answers');
    },
  });
  const values = inventory.values.bind(inventory);
  await pass(6 * hour);
  assert.equal(inventory.get('bb')?.state, 'unreachable', 'the other one was asked');
  assert.equal(inventory.get('a')?.state, 'attached', 'nothing is known of it');
  inventory.values = () => {
    throw new Error('the sweep is broken');
  };
  await pass(hour);
  inventory.values = values;
  fail = false;
  const before = asked.length;
  await pass(6 * hour);
  assert.ok(asked.length > before, 'the watch goes on');
  assert.equal(inventory.get('a')?.state, 'unreachable');
  const told = events.all
    .filter(({ name }) => name === 'background.failed')
    .map(({ fields }) => [fields.work, fields.reason, fields.failures]);
  const sweep = 'the sweep is broken';
  assert.deepEqual(told, [
    ['presence', 'broken', 1],
    ['presence', sweep, 1],
    ['presence', sweep, 10],
    ['presence', sweep, 100],
  ]);
});

test('a device that is locked out is unreachable for that cause, whatever a question finds, until it is heard', async () => {
  const out = new Set(['old']);
  const { watch, pass, inventory, events, outbox } = start(
    [record('old'), record('late'), record('behind', { via: 'gw-2' })],
    { lockedOut: (id) => (out.has(id) ? 'its account has ended' : undefined), configured: 3600 },
  );
  const shown = (id: string) => [inventory.get(id)?.state, inventory.get(id)?.reason];
  assert.deepEqual(shown('old'), ['unreachable', 'its account has ended'], 'it was so before the start');
  for (const id of ['late', 'behind']) out.add(id);
  await pass(minute);
  assert.deepEqual(shown('late'), ['unreachable', 'its account has ended']);
  assert.deepEqual(shown('behind'), ['attached', undefined], 'its own gateway judges it');
  await pass(6 * hour);
  watch.found('late', missing('nothing answers'));
  assert.deepEqual(shown('late'), ['unreachable', 'its account has ended']);
  assert.equal(events.count('device.unreachable'), 2, 'each is told once');
  assert.equal(outbox.size, 2);
  out.delete('late');
  watch.heard('late', { address: '192.0.2.1', port: 1 });
  assert.deepEqual(shown('late'), ['attached', undefined]);
});

test('what locks a device out is stored later where the disk takes nothing', async () => {
  const reason = 'its account has ended '.repeat(400);
  const out = new Set<string>();
  const setup = { lockedOut: (id: string) => (out.has(id) ? reason : undefined) };
  const { database, pass, watch, inventory } = start([record('a')], setup);
  const { page_count: pages } = database.prepare('PRAGMA page_count').get() as { page_count: number };
  database.prepare(`PRAGMA max_page_count = ${pages}`).get();
  out.add('a');
  watch.review();
  assert.equal(inventory.get('a')?.state, 'attached');
  database.prepare('PRAGMA max_page_count = 1000000').get();
  await pass(minute);
  assert.deepEqual([inventory.get('a')?.state, inventory.get('a')?.reason], ['unreachable', reason]);
});

test('if the disk is full, the watch continues, reports this, and stores its findings when there is room', async () => {
  const { database, pass, watch, events, inventory, outbox } = start(
    [record('a'), record('bb'), record('ccc')],
    {
      answer: () => missing('nothing answers '.repeat(500)),
    },
  );
  const { page_count: pages } = database.prepare('PRAGMA page_count').get() as { page_count: number };
  database.prepare(`PRAGMA max_page_count = ${pages}`).get();
  await pass(12 * hour);
  watch.heard('ccc', { address: '192.0.2.1', port: 1003 });
  assert.deepEqual(
    failuresOf(events).map(({ work }) => work),
    ['presence'],
  );
  assert.deepEqual([inventory.get('a')?.state, outbox.size], ['attached', 0], 'nothing is half done');
  database.prepare('PRAGMA max_page_count = 1000000').get();
  await pass(12 * hour);
  assert.equal(inventory.get('a')?.state, 'unreachable');
  assert.equal(outbox.size, 3);
});

test('the times of the last messages are written once an hour for all devices, and at the stop', async () => {
  const { database, pass, watch, clock } = start([record('a'), record('bb')]);
  const stored = () =>
    database
      .prepare('SELECT last_seen FROM device')
      .all()
      .map(({ last_seen }) => Number(last_seen));
  const heard = () => {
    watch.heard('a', { address: '192.0.2.1', port: 1001 });
    watch.heard('bb', { address: '192.0.2.1', port: 1002 });
  };
  const writes = () => Number(database.prepare('SELECT total_changes() AS n').get()?.n);
  const before = writes();
  for (let round = 0; round < 59; round++) {
    await pass(minute);
    heard();
  }
  assert.deepEqual([writes() - before, stored()], [0, [0, 0]]);
  const last = clock.wall();
  await pass(2 * minute);
  assert.deepEqual([writes() - before, stored()], [2, [last, last]]);
  heard();
  const end = clock.wall();
  watch[Symbol.dispose]();
  assert.deepEqual(stored(), [end, end]);
});

// conforms: GW-6
test('a device becomes unreachable as soon as another device proves itself at its address', () => {
  const { watch, inventory } = start([
    record('a'),
    record('bb'),
    record('client', { protocol: 'LwM2M', address: 'coap://192.0.2.1:1001' }),
  ]);
  const at = (port: number) => ({ address: '192.0.2.1', port, heardOn: '192.0.2.9' });
  const states = () => ['a', 'bb'].map((id) => inventory.get(id)?.reason ?? inventory.get(id)?.state);
  watch.heard('client', at(1001));
  assert.deepEqual(states(), ['attached', 'attached'], 'a client of LwM2M may share the socket');
  watch.heard('a', at(1002));
  assert.deepEqual(states(), ['attached', 'a is at its address now']);
  watch.heard('bb', at(1001));
  assert.deepEqual(states(), ['attached', 'attached'], 'both have swapped');
  assert.deepEqual(
    ['a', 'bb'].map((id) => [inventory.get(id)?.address, inventory.get(id)?.heardOn]),
    [
      ['coap://192.0.2.1:1002', '192.0.2.9'],
      ['coap://192.0.2.1:1001', '192.0.2.9'],
    ],
  );
});

test('a device that was unreachable before a restart is asked soon after it', async () => {
  const { asked, pass } = start([record('a', { state: 'unreachable', reason: 'it was off' }), record('bb')]);
  await pass(16 * minute);
  assert.deepEqual([...new Set(asked.map(([id]) => id))], ['a']);
});
