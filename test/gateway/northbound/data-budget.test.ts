import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { test } from 'node:test';
import type { Wall } from '../../../src/base/clock.ts';
import type { Database } from '../../../src/base/database.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { type BudgetLimits, DataBudget } from '../../../src/gateway/northbound/data-budget.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import { TrafficRecords } from '../../../src/gateway/store/traffic.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

const day = 86_400_000;
const noon = Date.UTC(2026, 4, 10, 12);

/** A clock whose time of day jumps when the test says so. */
class JumpingClock extends HandClock {
  #offset: number = noon - Number(this.now());

  override wall(): Wall {
    return (Number(this.now()) + this.#offset) as Wall;
  }

  jumpTo(wall: number): void {
    this.#offset = wall - Number(this.now());
  }
}

function budgetWith(limits: BudgetLimits, database: Database = openDatabase(':memory:', gatewaySchema)) {
  const clock = new JumpingClock();
  const events = new EventRecorder();
  const records = new TrafficRecords(database);
  const current = { limits };
  const again = () => new DataBudget({ limits: () => current.limits, records, clock, events });
  return { clock, events, records, database, current, again, budget: again() };
}

/** A connection that carries as many octets as the test says. */
async function line() {
  const server = createServer((socket) => socket.resume()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  await once(socket, 'connect');
  return {
    socket,
    send: (octets: number) => void socket.write(Buffer.alloc(octets)),
    [Symbol.asyncDispose]: async () => {
      socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

test('as the budget runs short, images wait first, then telemetry, orders and alerts, each told once', async () => {
  await using wire = await line();
  const { budget, events } = budgetWith({ day: 1000 });
  budget.follow(wire.socket, 'connection');
  const steps: [number, readonly string[]][] = [
    [699, []],
    [1, ['images']],
    [150, ['images', 'telemetry']],
    [100, ['images', 'telemetry', 'orders']],
    [50, ['images', 'telemetry', 'orders', 'alerts']],
    [500, ['images', 'telemetry', 'orders', 'alerts']],
  ];
  for (const [octets, expected] of steps) {
    wire.send(octets);
    assert.deepEqual(budget.view().short, expected);
  }
  assert.equal(events.count('budget.short'), 4);
  assert.deepEqual(events.all[1]?.fields, { traffic: 'telemetry', period: 'day', used: 850, limit: 1000 });
  assert.throws(() => budget.demand('alerts'), { code: 'overBudget', dmStatus: 503 });
});

test('a package is counted for its kind once, and the rest of the connection is the connection', async () => {
  await using wire = await line();
  const { budget } = budgetWith({});
  budget.follow(wire.socket, 'connection');
  budget.follow(wire.socket, 'images');
  wire.send(100);
  budget.book('orders', { up: 60, down: 0 });
  const { used, kinds } = budget.view().month;
  assert.deepEqual([used, kinds.orders.up, kinds.connection.up, kinds.images.up], [100, 60, 40, 0]);
});

test('a new day and a new month begin anew; a raised budget releases at once; who waits is told', async () => {
  await using wire = await line();
  const { budget, clock, events, current } = budgetWith({ day: 1000, month: 2500 });
  budget.follow(wire.socket, 'images');
  let released = 0;
  budget.onReleased(() => released++);
  const waiting = budget.granted('images', AbortSignal.timeout(10_000));
  await waiting;
  wire.send(1000);
  assert.equal(budget.allows('alerts'), false);
  const granted = budget.granted('images', AbortSignal.timeout(10_000));
  clock.advance(day / 2);
  await granted;
  assert.deepEqual([released, budget.view().day.used, budget.view().month.used], [1, 0, 1000]);
  wire.send(800);
  assert.equal(budget.allows('images'), false);
  clock.advance(day);
  assert.equal(budget.allows('images'), false, 'the month is at 1800 of 2500');
  current.limits = { day: 1000, month: 25_000 };
  assert.equal(budget.allows('images'), true);
  clock.jumpTo(Date.UTC(2026, 5, 1));
  assert.equal(budget.view().month.used, 0);
  assert.equal(events.count('budget.restored'), events.count('budget.short'));
});

test('a clock that is wrong after a start, or jumps back and forth, brings no new budget', async () => {
  await using wire = await line();
  const { budget, clock, again } = budgetWith({ day: 1000 });
  budget.follow(wire.socket, 'images');
  wire.send(1000);
  await budget[Symbol.asyncDispose]();
  clock.jumpTo(0);
  const next = again();
  assert.equal(next.view().day.used, 1000, 'in 1970, before the time is known');
  clock.jumpTo(noon + 3_600_000);
  assert.equal(next.view().day.used, 1000, 'the same day again');
  clock.jumpTo(noon - 30 * day);
  clock.advance(day - 1);
  assert.equal(next.view().day.used, 1000);
  clock.advance(day);
  assert.equal(next.view().day.used, 0, 'a whole day of running ends a day that the clock does not reach');
});

test('counters are written together, survive a restart, and a row that cannot be read does not stop the start', async () => {
  await using wire = await line();
  const { budget, clock, database, again, records } = budgetWith({});
  const before = () => Number(database.prepare('SELECT total_changes() AS n').get()?.n);
  budget.start();
  budget.follow(wire.socket, 'connection');
  const at = before();
  for (let minute = 0; minute < 180; minute++) {
    wire.send(100);
    clock.advance(60_000);
  }
  assert.ok(before() - at <= 3, `${before() - at} writes in three hours`);
  wire.send(300_000);
  clock.advance(60_000);
  const total = budget.view().month.used;
  assert.equal(total, 180 * 100 + 300_000);
  assert.equal(again().view().month.used, total);
  await budget[Symbol.asyncDispose]();
  assert.equal(clock.timers, 0);
  for (const body of ['', '{', '{"day":{"start":0,"elapsed":0,"octets":{}},"month":null}', 'null']) {
    database.prepare('UPDATE traffic SET body = ?').run(body);
    assert.equal(records.get(), undefined);
    assert.equal(again().view().month.used, 0);
  }
});

test('a package is under way at midnight, and a restart follows: the month is not forgotten, nor is the day', async () => {
  await using wire = await line();
  const { budget, clock, again } = budgetWith({ day: 100_000, month: 200_000 });
  budget.follow(wire.socket, 'connection');
  wire.send(150_000);
  budget.sample();
  clock.advance(day);
  budget.sample();
  // The answer comes in the new day. The package was sent in the old one.
  budget.book('orders', { up: 20_000, down: 300 });
  wire.send(278);
  const { day: today, month } = budget.view();
  assert.deepEqual([today.used, month.used], [278, 150_278]);
  assert.deepEqual(today.kinds.connection, { up: 0, down: 0 }, 'people see no negative count');
  await budget[Symbol.asyncDispose]();
  const next = again();
  assert.deepEqual([next.view().day.used, next.view().month.used], [278, 150_278]);
  assert.deepEqual(next.view().short, ['images']);
});

test('a day that cannot be read does not take the month with it', async () => {
  await using wire = await line();
  const { budget, database, again } = budgetWith({});
  budget.follow(wire.socket, 'connection');
  wire.send(5000);
  await budget[Symbol.asyncDispose]();
  for (const [broken, expected] of [
    ['day', [0, 5000]],
    ['month', [0, 0]],
  ] as const) {
    database.prepare(`UPDATE traffic SET body = json_set(body, '$.${broken}.octets.images.up', 'x')`).run();
    const { day: today, month } = again().view();
    assert.deepEqual([today.used, month.used], expected);
  }
});

test('a disk that takes no writes stops neither the counting nor the end', async () => {
  await using wire = await line();
  const { budget, database, records } = budgetWith({});
  budget.follow(wire.socket, 'connection');
  database.prepare('DROP TABLE traffic').run();
  wire.send(500_000);
  budget.sample();
  assert.equal(budget.view().day.used, 500_000);
  await budget[Symbol.asyncDispose]();
  assert.throws(() => records.put(budget.view() as never));
});
