import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Wall } from '../../../src/base/clock.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import {
  type Reporting,
  reportLimits,
  TelemetryReports,
} from '../../../src/gateway/northbound/telemetry-reports.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { TelemetryRows } from '../../../src/gateway/store/telemetry-rows.ts';
import { type DeviceValue, decodeReport } from '../../../src/mo/telemetry-report.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { FailingDisk } from '../store/failing-disk.ts';

const minute = 60_000;
const order: Reporting = { server: 'dm', name: 'o', period: 60, count: 0 };

/** Reports with a clock that is moved by hand, and a server that answers as the test says. */
function rig({ database = openDatabase(':memory:', gatewaySchema), limit = 1024 * 1024, run = 1 } = {}) {
  const clock = new HandClock();
  const events = new EventRecorder();
  let isAllowed = true;
  let wakes = 0;
  const rows = new TelemetryRows(database);
  const reports = new TelemetryReports({
    rows,
    vocabulary: ownVocabulary,
    limit,
    isAllowed: () => isAllowed,
    clock,
    entropy: seededEntropy(run),
    events,
  });
  reports.deliverBy({ wake: () => void wakes++ });
  const value = (n: number, device = 'd'): DeviceValue => ({
    device,
    path: '/1/0/1',
    value: n,
    at: clock.wall(),
  });
  /** A session with a server, which answers each report with a status. Null: not at all. */
  const session = (server = 'dm', status: number | null = 200) => {
    const taken = reports.take(server);
    const read = taken.map(({ items: [item] }) => decodeReport(item?.data as Uint8Array, clock.wall()));
    if (status !== null) for (const { settled } of taken) settled?.(status);
    reports.ended(server);
    return read;
  };
  return {
    ...{ clock, events, reports, rows, database, value, session },
    allow: (allowed: boolean) => {
      isAllowed = allowed;
    },
    wakes: () => wakes,
  };
}

const numbersIn = (read: readonly { values: readonly DeviceValue[] }[]) =>
  read.flatMap(({ values }) => values.map(({ value }) => value));

test('values wait for others until the period of the first is over, and go in one report', () => {
  const { clock, reports, value, session, wakes } = rig();
  reports.add(order, [value(1)]);
  clock.advance(59_999);
  reports.add(order, [value(2, 'e')]);
  assert.deepEqual([reports.servers(), reports.buffered, wakes()], [[], 2, 0]);
  clock.advance(1);
  assert.deepEqual([reports.servers(), wakes()], [['dm'], 1]);
  assert.deepEqual(numbersIn(session()), [1, 2]);
  assert.deepEqual([reports.servers(), reports.buffered], [[], 0]);
});

test('a value of a shorter period does not wait for the longer one of those before it', () => {
  const { clock, reports, value, session } = rig();
  reports.add(order, [value(1)]);
  reports.add({ ...order, name: 'quick', period: 1 }, [value(2)]);
  clock.advance(1000);
  assert.deepEqual(numbersIn(session()), [1, 2]);
  // The wait of the first value has ended with it.
  reports.add(order, [value(3)]);
  clock.advance(59_999);
  assert.deepEqual(reports.servers(), []);
});

test('the number of values of an observation ends the wait; values of another one do not count', () => {
  const { reports, value, session } = rig();
  const few = { ...order, name: 'few', count: 2 };
  reports.add(few, [value(1)]);
  reports.add(order, [value(2)]);
  assert.deepEqual(reports.servers(), []);
  reports.add(few, [value(3)]);
  assert.deepEqual(numbersIn(session()), [1, 2, 3]);
});

test('no report is larger than its bound, whatever comes', () => {
  const { clock, reports, value, rows } = rig();
  for (let n = 0; n < 3000; n++)
    reports.add(order, [{ ...value(n, `urn:dev:${n}`), value: 'x'.repeat(n % 700) }]);
  clock.advance(minute);
  reports.stop();
  const sizes = rows.all().map(({ body }) => body.length);
  assert.ok(sizes.length > 50);
  assert.ok(Math.max(...sizes) <= reportLimits.bytes, String(Math.max(...sizes)));
});

test('a value that no report holds is dropped and counted', () => {
  const { clock, reports, value, session } = rig();
  const bad = ['x'.repeat(9000), Number.NaN, Number.POSITIVE_INFINITY, 2n ** 64n, -(2n ** 63n) - 1n];
  for (const each of bad) reports.add(order, [{ ...value(1), value: each }]);
  reports.add(order, [{ ...value(1), path: '/\u0000' }, value(2), { ...value(3), value: 2n ** 64n - 1n }]);
  clock.advance(minute);
  assert.deepEqual(
    session().map(({ dropped, values }) => [dropped, values.map((each) => each.value)]),
    [[bad.length + 1, [2, 2n ** 64n - 1n]]],
  );
});

test('values that came before the gateway had the time are as old as they are, however long their report waits', () => {
  const { clock, reports, value, session } = rig();
  const date = 1_790_000_000_000;
  let ahead = 0;
  clock.wall = () => (clock.now() + ahead) as Wall;
  const ageOf = () => session().map(({ values }) => values.map(({ at }) => clock.wall() - at));
  reports.add(order, [value(1)]);
  clock.advance(minute);
  clock.advance(120 * minute);
  assert.deepEqual(ageOf(), [[121 * minute]], 'there is no time yet');
  reports.add(order, [value(2)]);
  clock.advance(minute);
  clock.advance(30 * minute);
  ahead = date;
  assert.deepEqual(ageOf(), [[31 * minute]], 'the clock was set while the report waited');
  ahead = 0;
  reports.add(order, [value(3)]);
  clock.advance(minute / 2);
  ahead = date;
  reports.add(order, [value(4)]);
  clock.advance(minute / 2);
  clock.advance(30 * minute);
  assert.deepEqual(ageOf(), [[31 * minute, 30.5 * minute]], 'the clock was set while the values gathered');
});

test('at the bound the oldest goes, each value is counted once, and the next report says how many', () => {
  const { clock, reports, value, session, events } = rig({ limit: 2000 });
  let sent = 0;
  for (let n = 0; n < 30; n++) {
    reports.add(
      { ...order, count: 10 },
      Array.from({ length: 10 }, () => value(sent++)),
    );
    clock.advance(1000);
  }
  const read = session();
  reports.add({ ...order, count: 1 }, [value(sent++)]);
  read.push(...session());
  const told = read.reduce((sum, { dropped }) => sum + dropped, 0);
  assert.equal(told + numbersIn(read).length, 301);
  assert.deepEqual(
    numbersIn(read),
    Array.from({ length: numbersIn(read).length }, (_, at) => told + at),
  );
  assert.equal(reports.dropped, told);
  assert.ok(told > 100);
  assert.equal(events.count('telemetry.dropped'), 1, 'it is told once');
  // What was told is not told again.
  reports.add({ ...order, count: 1 }, [value(1)]);
  assert.equal(session()[0]?.dropped, 0);
});

test('the server with the most gives way: one that is away takes no room from the others', () => {
  const { reports, value, session } = rig({ limit: 3000 });
  reports.add({ ...order, server: 'quiet', count: 1 }, [value(1)]);
  for (let n = 0; n < 500; n++) reports.add({ ...order, server: 'loud', count: 10 }, [value(n)]);
  assert.deepEqual(numbersIn(session('quiet')), [1]);
});

test('a device that sends more than others displaces its own values, and not theirs', () => {
  const { clock, reports, value, session } = rig({ limit: 64 * 1024 });
  const others = Array.from({ length: 10 }, (_, n) => `e${n}`);
  const flood = Array.from({ length: 20 }, () => ({ ...value(0), value: 'x'.repeat(1000) }));
  for (let round = 0; round < 60; round++) {
    reports.add(
      order,
      others.map((device) => value(round, device)),
    );
    reports.add(order, flood);
    clock.advance(minute);
  }
  const read = [];
  for (let some = session(); some.length > 0; some = session()) read.push(...some);
  const values = read.flatMap((report) => report.values);
  for (const device of others)
    assert.equal(values.filter((each) => each.device === device).length, 60, device);
  assert.ok(reports.dropped > 1000);
  assert.ok(values.length > 610, 'and it has the rest of the room');
});

test('a report that was delivered was never written; one that waits for a minute is', () => {
  const { clock, reports, value, session, rows, database } = rig();
  for (let n = 0; n < 5; n++) {
    reports.add({ ...order, count: 1 }, [value(n)]);
    session();
    clock.advance(minute);
  }
  assert.equal(rows.all().length, 0);
  const sequences = database.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'telemetry_report'").get();
  assert.equal(sequences, undefined, 'no row was ever written');
  // One that was made just before the moment of writing is not written then.
  reports.add({ ...order, count: 1 }, [value(4)]);
  session();
  clock.advance(minute - 1);
  reports.add({ ...order, count: 1 }, [value(5)]);
  clock.advance(1);
  assert.equal(rows.all().length, 0);
  clock.advance(2 * minute);
  assert.equal(rows.all().length, 1);
  session();
  clock.advance(minute);
  assert.equal(rows.all().length, 0, 'a report that the server has leaves the disk');
});

test('after a restart the reports come again, with their numbers, before those of the new run', () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const before = rig({ database, run: 1 });
  before.reports.add({ ...order, count: 1 }, [before.value(1)]);
  before.reports.add({ ...order, count: 1 }, [before.value(2)]);
  // The server has the first, and its answer is lost.
  const lost = before.session('dm', null);
  before.reports.add(order, [before.value(3)]);
  before.reports.stop();
  const after = rig({ database, run: 2 });
  assert.equal(after.reports.buffered, 3);
  after.reports.add({ ...order, count: 1 }, [after.value(4)]);
  const read = after.session();
  assert.deepEqual(numbersIn(read), [1, 2, 3, 4]);
  const [first, second, third, fourth] = read;
  assert.deepEqual([first?.epoch, first?.sequence], [lost[0]?.epoch, lost[0]?.sequence]);
  assert.deepEqual([second?.sequence, third?.sequence], [2, 3]);
  assert.notEqual(fourth?.epoch, first?.epoch);
});

test('a disk that takes nothing keeps no value back: reports stay in memory and are written later', () => {
  using disk = new FailingDisk();
  const { clock, reports, value, session, rows, events } = rig();
  reports.add({ ...order, count: 1 }, [value(1)]);
  disk.failAfter(0, { staysFull: true });
  clock.advance(2 * minute);
  assert.ok(disk.mend());
  assert.equal(rows.all().length, 0);
  assert.ok(
    events.all.some(({ name, fields }) => name === 'background.failed' && fields.work === 'telemetry'),
  );
  clock.advance(2 * minute);
  assert.equal(rows.all().length, 1);
  disk.failAfter(0, { staysFull: true });
  assert.deepEqual(numbersIn(session()), [1]);
  clock.advance(2 * minute);
  disk.mend();
  assert.equal(rows.all().length, 1, 'the row is not gone yet');
  clock.advance(2 * minute);
  assert.equal(rows.all().length, 0);
});

test('a report that the server refuses waits longer and longer; 415 for good drops it, 420 never does', () => {
  const { clock, reports, value, session, events } = rig();
  reports.add({ ...order, count: 1 }, [value(1)]);
  for (let n = 0; n < 20; n++) {
    assert.equal(session('dm', 420).length, 1);
    assert.deepEqual(reports.servers(), []);
    clock.advance(300_000);
    assert.deepEqual(reports.servers(), ['dm']);
  }
  for (let n = 0; n < 5; n++) {
    assert.equal(session('dm', 415).length, 1);
    clock.advance(300_000);
  }
  assert.deepEqual([reports.servers(), reports.dropped], [[], 1]);
  assert.equal(events.count('telemetry.refused'), 25);
  reports.add({ ...order, count: 1 }, [value(2)]);
  assert.equal(session()[0]?.dropped, 1);
});

test('a server without an answer is tried after one second, then later', () => {
  const { clock, reports, value, session, wakes } = rig();
  reports.add({ ...order, count: 1 }, [value(1)]);
  session('dm', null);
  assert.deepEqual([reports.servers(), wakes()], [[], 1]);
  clock.advance(1000);
  assert.deepEqual([reports.servers(), wakes()], [['dm'], 2]);
  session('dm', null);
  clock.advance(1999);
  assert.deepEqual(reports.servers(), []);
});

test('what is under way is not dropped at the bound', () => {
  const { reports, value } = rig({ limit: 500 });
  reports.add({ ...order, count: 1 }, [value(1)]);
  const [alert] = reports.take('dm');
  for (let n = 0; n < 50; n++) reports.add({ ...order, count: 1 }, [value(n)]);
  alert?.settled?.(200);
  reports.ended('dm');
  // Had it been dropped as well, it would be counted though the server has it.
  assert.equal(reports.buffered + reports.dropped, 50);
});

test('without room in the data budget nothing is due', () => {
  const { reports, value, allow } = rig();
  reports.add({ ...order, count: 1 }, [value(1)]);
  allow(false);
  assert.deepEqual([reports.servers(), reports.take('dm')], [[], []]);
  allow(true);
  assert.deepEqual(reports.servers(), ['dm']);
});

test('what is for a server without an account is forgotten, on the disk too; no timer is left after the stop', () => {
  const { clock, reports, value, rows } = rig();
  reports.add({ ...order, count: 1 }, [value(1)]);
  clock.advance(2 * minute);
  reports.add({ ...order, server: 'other', count: 1 }, [value(2)]);
  reports.add(order, [value(3)]);
  reports.endOf((server) => server === 'dm');
  clock.advance(2 * minute);
  assert.deepEqual(
    rows.all().map(({ server }) => server),
    ['other'],
  );
  reports.stop();
  assert.equal(clock.timers, 0);
});
