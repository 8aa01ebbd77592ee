import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { PosternError } from '../../src/base/errors.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { Jobs } from '../../src/dm/jobs.ts';
import type { OperationOutcome, Work } from '../../src/dm/server-session.ts';
import type { Notifier } from '../../src/headend/notifier.ts';
import { OrderBook } from '../../src/headend/order-book.ts';
import { Parties } from '../../src/headend/parties.ts';
import { Reachability } from '../../src/headend/reachability.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { SessionOrders, waitingLimit } from '../../src/headend/session-orders.ts';
import { SessionRequests } from '../../src/headend/session-requests.ts';
import { UnreachableDevices } from '../../src/headend/unreachable-devices.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { headendConfig } from '../journeys/site.ts';

const id = 'urn:dev:ops:1';
const operations = [{ name: 'Get', uri: './Site/Name' }] as const;
const outcome: OperationOutcome = { operation: operations[0], status: 200, results: [] };
const patience = 86_400;

/** Orders of a DM server whose gateway, or nobody, says why the device cannot be asked. */
function desk(t: TestContext, { isKnown = true, ids = [id] } = {}) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const database = openDatabase(':memory:', headendSchema);
  t.after(() => database.close());
  const parties = new Parties(headendConfig('mqtt://127.0.0.1', ids), database);
  const reachability = new Reachability(parties, new UnreachableDevices(database, parties));
  if (isKnown) for (const each of ids) reachability.prove(each, 'gw-1');
  const asked: { answer: (reason: string | undefined) => void; fail: (error: Error) => void }[] = [];
  const notifier = {
    sendPackage0: () =>
      new Promise<string | undefined>((answer, fail) => {
        asked.push({ answer, fail });
      }),
  } as unknown as Notifier;
  const jobs = new Jobs();
  const orders = new OrderBook(database, clock);
  const sessionRequests = new SessionRequests({
    ...{ parties, reachability, notifier, jobs, clock },
    sessionTimeout: 60,
  });
  const entropy = seededEntropy(1);
  const sessionOrders = new SessionOrders({
    ...{ parties, sessionRequests, orders, entropy, clock, events, patience },
  });
  /** The device opens a session by itself. Returns the work, which has asked for its first operations. */
  const comes = async (): Promise<Work> => {
    const work = jobs.work(id);
    assert.deepEqual((await work.next([])).value, operations);
    return work;
  };
  return { clock, database, orders, sessionOrders, asked, jobs, comes };
}

/** Lets what is ready run to its end. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('a device that only comes by itself', () => {
  const reason = 'it comes over HTTP';

  test('what is wanted of it waits until it comes, and the order says so', async (t) => {
    const { clock, orders, sessionOrders, asked, comes } = desk(t);
    const running = sessionOrders.run('device', id, operations);
    asked[0]?.answer(reason);
    const { correlator, operations: none } = await running;
    assert.equal(none, undefined);
    const waiting = orders.find(correlator);
    assert.equal(waiting?.state, 'sending');
    assert.equal(waiting?.reason, `waits until the device comes by itself: ${reason}`);
    assert.equal(Date.parse(waiting?.due ?? '') - Date.parse(waiting?.accepted ?? ''), patience * 1000);
    clock.advance((patience - 1) * 1000);
    const work = await comes();
    assert.equal(orders.find(correlator)?.reason, undefined, 'it waits no more');
    await work.next([outcome]);
    await settled();
    const done = orders.find(correlator);
    assert.deepEqual([done?.state, done?.operations?.[0]?.status], ['done', 200]);
  });

  test('one that no gateway is known to have waits as well', async (t) => {
    const { orders, sessionOrders, asked, comes } = desk(t, { isKnown: false });
    const { correlator } = await sessionOrders.run('device', id, operations);
    assert.match(orders.find(correlator)?.reason ?? '', /no gateway is known/);
    assert.equal(asked.length, 0);
    await (await comes()).next([outcome]);
    await settled();
    assert.equal(orders.find(correlator)?.state, 'done');
  });

  test('one that comes before the answer of its gateway is not waited for', async (t) => {
    const { sessionOrders, asked, comes } = desk(t);
    const running = sessionOrders.run('device', id, operations);
    await (await comes()).next([outcome]);
    asked[0]?.answer(reason);
    assert.equal((await running).operations?.[0]?.status, 200);
  });

  test('one that can be asked has the usual time, and what its gateway refuses is an error at once', async (t) => {
    const { clock, sessionOrders, asked } = desk(t);
    const running = sessionOrders.run('device', id, operations);
    asked[0]?.answer(undefined);
    await settled();
    clock.advance(60_000);
    await assert.rejects(running, { code: 'timeout' });
    const refused = sessionOrders.run('device', id, operations);
    asked[1]?.fail(new PosternError('unauthorized', 'wrong digest'));
    await assert.rejects(refused, { code: 'unauthorized' });
  });

  test('it is not waited for without end, nor beyond the end of the server', async (t) => {
    for (const [pass, status] of [
      [({ clock }: ReturnType<typeof desk>) => clock.advance(patience * 1000), 408],
      [({ sessionOrders }: ReturnType<typeof desk>) => sessionOrders.stop(), 503],
    ] as const) {
      const all = desk(t);
      const running = all.sessionOrders.run('device', id, operations);
      all.asked[0]?.answer(reason);
      const { correlator } = await running;
      pass(all);
      await settled();
      const { state, status: told } = all.orders.find(correlator) ?? {};
      assert.deepEqual([state, told], ['failed', status]);
      assert.equal(all.jobs.count(id), 0, 'nothing is left of it');
    }
  });

  test('a restart ends an order that waited, and does not know of one that had begun', async (t) => {
    const { clock, database, sessionOrders, asked, comes } = desk(t);
    const correlators: string[] = [];
    for (const at of [0, 1]) {
      const running = sessionOrders.run('device', id, operations);
      asked[at]?.answer(reason);
      correlators.push((await running).correlator);
    }
    await comes();
    const afterwards = new OrderBook(database, clock);
    assert.deepEqual(
      correlators.map((each) => afterwards.find(each)?.state),
      ['unknown', 'failed'],
    );
  });

  test('a disk that takes no end of the order is asked again', async (t) => {
    const { clock, database, orders, sessionOrders, asked, comes } = desk(t);
    const running = sessionOrders.run('device', id, operations);
    asked[0]?.answer(reason);
    const { correlator } = await running;
    const work = await comes();
    const prepare = database.prepare.bind(database);
    t.mock.method(database, 'prepare', (sql: string) => {
      if (/SET state = \?/.test(sql)) throw new PosternError('storage', 'the disk is full');
      return prepare(sql);
    });
    await work.next([outcome]);
    await settled();
    assert.equal(orders.find(correlator)?.state, 'sending');
    t.mock.restoreAll();
    clock.advance(60_000);
    await settled();
    assert.equal(orders.find(correlator)?.state, 'done');
  });

  test('there is a bound of what waits for all devices', async (t) => {
    const ids = Array.from({ length: waitingLimit / 64 + 1 }, (_, at) => `urn:dev:${at}`);
    const { orders, sessionOrders } = desk(t, { isKnown: false, ids });
    for (let at = 0; at < waitingLimit; at++)
      await sessionOrders.run('device', ids[Math.floor(at / 64)]!, operations);
    await assert.rejects(sessionOrders.run('device', ids.at(-1)!, operations), { code: 'full' });
    assert.equal(orders.list('Session').at(-1)?.state, 'failed');
    await assert.rejects(sessionOrders.run('device', ids[0]!, operations), { code: 'full' });
  });

  test('a gateway, and a device without an account, are not waited for', async (t) => {
    const { sessionOrders } = desk(t);
    await assert.rejects(sessionOrders.run('device', 'urn:dev:other', operations), { code: 'notFound' });
    await assert.rejects(sessionOrders.run('gateway', id, operations), { code: 'notFound' });
  });
});
