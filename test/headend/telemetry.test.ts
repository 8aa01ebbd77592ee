import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { AlertHandler } from '../../src/headend/alert-handler.ts';
import { AlertSequences } from '../../src/headend/alert-sequences.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { DeviceValues, valueRows } from '../../src/headend/device-values.ts';
import { Parties } from '../../src/headend/parties.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import type { SessionContext } from '../../src/headend/sessions.ts';
import { TelemetryHandler } from '../../src/headend/telemetry-handler.ts';
import { type DeviceValue, encodeReport, telemetryAlert } from '../../src/mo/telemetry-report.ts';
import { ownVocabulary } from '../../src/mo/vocabulary.ts';
import type { Alert } from '../../src/wire/syncml/message.ts';
import { EventRecorder } from '../event-recorder.ts';
import { FailingDisk } from '../gateway/store/failing-disk.ts';
import { HandClock } from '../hand-clock.ts';

const path = '/3303/0/5700';
const secrets = { 'client-secret': 'client secret', 'server-secret': 'server secret' };

/** What takes alerts at a head-end with the gateways `gw-1` and `gw-2`. */
function rig(database = openDatabase(':memory:', headendSchema)) {
  const config = checkConfig(
    headendConfigSchema,
    {
      headend: { id: 'dm.example', state: ':memory:' },
      mqtt: { url: 'mqtt://127.0.0.1:1' },
      gateway: ['gw-1', 'gw-2'].map((id) => ({ id, ...secrets })),
      device: [{ id: 'd', ...secrets }],
    },
    'test',
  );
  const clock = new HandClock();
  const events = new EventRecorder();
  const parties = new Parties(config, database);
  const sequences = new AlertSequences(database);
  const values = new DeviceValues(database);
  const base = { database, parties, sequences, clock, events };
  const handler = new AlertHandler({
    ...base,
    ...({} as Omit<ConstructorParameters<typeof AlertHandler>[0], keyof typeof base>),
    telemetry: new TelemetryHandler({ ...base, values }),
    vocabulary: ownVocabulary,
  });
  const value = (n: number, at: number = clock.wall(), device = 'd'): DeviceValue => ({
    device,
    path,
    value: n,
    at,
  });
  const report = (sequence: number, list: readonly DeviceValue[], dropped = 0, epoch = 'e1') =>
    ({
      name: 'Alert',
      cmdId: '1',
      data: 1226,
      items: telemetryAlert(
        ownVocabulary,
        encodeReport({ epoch, sequence, dropped, values: list }, clock.wall()),
      ).items,
    }) as Alert;
  const session = (gateway = 'gw-1', kind = 'gateway') =>
    ({ party: { id: gateway, kind }, gateway }) as unknown as SessionContext;
  return {
    ...{ database, clock, events, parties, sequences, values, handler, value, report, session },
    history: () => values.history('d', path, { limit: 1000 }).map((each) => each.value),
  };
}

test('values are stored: the latest of each path, and their history', () => {
  const { handler, report, session, value, values, history, events } = rig();
  assert.equal(handler.handle(session(), report(1, [value(20), value(21)])), 200);
  assert.deepEqual(
    values.latest('d').map((each) => [each.path, each.value, each.gateway]),
    [[path, 21, 'gw-1']],
  );
  assert.deepEqual(history(), [21, 20]);
  assert.equal(events.count('telemetry.received'), 1);
});

test('a report that comes twice counts once, also after a restart of the head-end; a new epoch counts anew', () => {
  const first = rig();
  first.handler.handle(first.session(), first.report(2, [first.value(1)]));
  assert.equal(first.handler.handle(first.session(), first.report(2, [first.value(1)])), 200);
  const second = rig(first.database);
  assert.equal(second.handler.handle(second.session(), second.report(2, [second.value(1)])), 200);
  assert.equal(second.handler.handle(second.session(), second.report(1, [second.value(0)])), 200);
  assert.deepEqual(second.history(), [1]);
  second.handler.handle(second.session(), second.report(1, [second.value(3)], 0, 'e2'));
  assert.deepEqual(second.history(), [3, 1]);
});

test('reports and alerts do not share their numbers, and neither do two gateways', () => {
  const { handler, report, session, value, history, sequences } = rig();
  sequences.record('gw-1', 'e1', 500);
  handler.handle(session('gw-1'), report(1, [value(1)]));
  handler.handle(session('gw-2'), report(1, [value(2)]));
  assert.deepEqual(history(), [2, 1]);
});

test('a commit that fails stores nothing of a report, and the same report counts when it comes again', () => {
  using disk = new FailingDisk();
  for (let at = 0; at < 12; at++)
    for (const endsTransaction of [false, true]) {
      const { handler, report, session, value, history, values } = rig();
      disk.failAfter(at, { endsTransaction });
      const status = handler.handle(session(), report(1, [value(1), value(2)]));
      if (!disk.mend()) {
        assert.equal(status, 200);
        continue;
      }
      assert.equal(status, 420, `write ${at}`);
      assert.deepEqual([history(), values.latest('d')], [[], []], `write ${at}`);
      assert.equal(handler.handle(session(), report(1, [value(1), value(2)])), 200);
      assert.deepEqual(history(), [2, 1], `write ${at}`);
    }
});

test('a report that cannot be read is refused with 400, and its number is not taken; a device may send none', () => {
  const { handler, report, session, value, history } = rig();
  const whole = report(1, [value(1)]);
  const broken = { ...whole, items: [{ ...whole.items[0], data: Buffer.from('x') }] } as Alert;
  assert.equal(handler.handle(session(), broken), 400);
  assert.equal(handler.handle(session('d', 'device'), whole), 403);
  assert.equal(handler.handle(session(), whole), 200);
  assert.deepEqual(history(), [1]);
});

test('values of a device that is attached to another gateway are not stored, and that is told', () => {
  const { handler, report, session, value, parties, history, events } = rig();
  parties.associate('d', 'gw-2');
  for (let n = 1; n <= 3; n++)
    assert.equal(handler.handle(session(), report(n, [value(n), value(n, 0, 'mine')])), 200);
  assert.deepEqual(history(), []);
  assert.deepEqual(
    events.all.filter(({ name }) => name === 'telemetry.foreign').map(({ fields }) => fields),
    [{ gateway: 'gw-1', values: 1, refused: 1 }],
  );
  handler.handle(session('gw-2'), report(1, [value(9)]));
  assert.deepEqual(history(), [9]);
});

test('a late value does not replace a newer one, and a time in the future is the time of receipt', () => {
  const { handler, report, session, value, values, clock, history } = rig();
  const now = clock.wall();
  handler.handle(session(), report(1, [value(2, now - 1000)]));
  handler.handle(session(), report(2, [value(1, now - 5000)]));
  assert.deepEqual([values.latest('d')[0]?.value, history()], [2, [1, 2]]);
  handler.handle(session(), report(3, [value(3, now + 86_400_000)]));
  assert.equal(values.latest('d')[0]?.at, new Date(now).toISOString());
  clock.advance(1000);
  handler.handle(session(), report(4, [value(4)]));
  assert.equal(values.latest('d')[0]?.value, 4);
});

test('what a gateway had to drop is told', () => {
  const { handler, report, session, value, events } = rig();
  handler.handle(session(), report(1, [value(1)], 17));
  assert.deepEqual(events.all.find(({ name }) => name === 'telemetry.lost')?.fields, {
    gateway: 'gw-1',
    values: 17,
  });
});

test('the history selects by path, time and page', () => {
  const { values, clock } = rig();
  const start = clock.wall();
  clock.advance(10_000);
  const at = (n: number) => start + n * 1000;
  values.add(
    'gw',
    Array.from({ length: 10 }, (_, n) => ({ device: 'd', path, value: n, at: at(n) })),
    clock.wall(),
  );
  values.add('gw', [{ device: 'd', path: '/x', value: true, at: at(0) }], clock.wall());
  const found = (query: object) => values.history('d', path, { limit: 3, ...query });
  assert.deepEqual(
    found({}).map(({ value }) => value),
    [9, 8, 7],
  );
  assert.deepEqual(
    found({ before: found({}).at(-1)?.number }).map(({ value }) => value),
    [6, 5, 4],
  );
  assert.deepEqual(
    found({ from: at(2), to: at(3) }).map(({ value }) => value),
    [3, 2],
  );
  assert.deepEqual(
    values.latest('d').map(({ path: of, value }) => [of, value]),
    [
      [path, 9],
      ['/x', true],
    ],
  );
});

test('kinds of values: whole numbers of 64 bits and octets keep all that they have', () => {
  const { values } = rig();
  const list = [2n ** 63n - 1n, 5n, Buffer.of(0, 255), 'text', false, -0.5];
  values.add(
    'gw',
    list.map((value, n) => ({ device: 'd', path: `/${n}`, value, at: 0 })),
    0,
  );
  assert.deepEqual(
    values.latest('d').map(({ type, value }) => [type, value]),
    [
      ['integer', '9223372036854775807'],
      ['number', 5],
      ['octets', 'AP8='],
      ['string', 'text'],
      ['boolean', false],
      ['number', -0.5],
    ],
  );
});

test('both tables are bounded, and a gateway with many values displaces its own', () => {
  const { values, database } = rig();
  const count = (table: string, gateway: string) =>
    Number(database.prepare(`SELECT count(*) AS n FROM ${table} WHERE gateway = ?`).get(gateway)?.n);
  const chunk = (device: string, n: number) =>
    Array.from({ length: 1000 }, (_, at) => ({ device, path: `/${n * 1000 + at}`, value: at, at: 0 }));
  database.transaction(() => {
    values.add('small', chunk('s', 0), 1);
    for (let n = 0; n < valueRows.history / 1000 + 5; n++) values.add('large', chunk('l', n), 2 + n);
  });
  for (const [table, limit] of [
    ['value_history', valueRows.history],
    ['latest_value', valueRows.latest],
  ] as const) {
    assert.equal(count(table, 'small'), 1000);
    const sum = count(table, 'large') + 1000;
    assert.ok(sum <= limit && sum > limit * 0.9, `${table} ${sum}`);
  }
  // The oldest have gone.
  assert.equal(values.history('l', '/0', { limit: 1 }).length, 0);
});

test('a device with more than half of the values of its gateway gives way to the others', () => {
  const database = openDatabase(':memory:', headendSchema);
  const values = new DeviceValues(database);
  const of = (device: string, n: number) =>
    Array.from({ length: 1000 }, (_, at) => ({ device, path: `/${n * 1000 + at}`, value: at, at: 0 }));
  database.transaction(() => {
    for (let n = 0; n < 10; n++) values.add('gw', of('quiet', n), 1);
    for (let n = 0; n < valueRows.history / 1000; n++) values.add('gw', of('loud', n), 2 + n);
  });
  for (const table of ['value_history', 'latest_value']) {
    const left = database.prepare(`SELECT count(*) AS n FROM ${table} WHERE device = ?`);
    assert.equal(left.get('quiet')?.n, 10_000);
    assert.ok(Number(left.get('loud')?.n) > 80_000);
  }
});
