import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import type { Operation, OperationOutcome } from '../../src/dm/server-session.ts';
import { Departures, type NextOwner } from '../../src/headend/departures.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

const next: NextOwner = { server: 'dm.next', code: 'c' };

/** Departures of a head-end that has enrolled `gw-1`. A second one on the same database is its next run. */
function rig(database = openDatabase(':memory:', headendSchema)) {
  const events = new EventRecorder();
  const asked: string[] = [];
  const departures = new Departures({
    database,
    records: { demandHolder: () => ({ key: 'k' }), holder: () => ({}), leave: () => {} } as never,
    sealing: { seal: (bytes: Uint8Array) => bytes, open: (bytes: Uint8Array) => Buffer.from(bytes) } as never,
    notifier: { ask: (gateway) => void asked.push(gateway) },
    parties: { configured: () => undefined, associations: () => [], revoke: () => {} } as never,
    unreachableDevices: {} as never,
    gone: () => {},
    clock: new HandClock(),
    events,
  });
  /** A session with the gateway. `answer` gives a status for the URI of each Exec; undefined breaks the session off. */
  const session = async (answer: (uri: string) => number | undefined) => {
    const executed: string[] = [];
    const work = departures.work('gw-1');
    let step = await work.next([]);
    while (!step.done) {
      const [operation] = step.value as readonly (Operation & { uri: string })[];
      executed.push(operation!.uri);
      const status = answer(operation!.uri);
      if (status === undefined) {
        await work.return(undefined as never);
        break;
      }
      step = await work.next([{ status, results: [] } as unknown as OperationOutcome]);
    }
    return executed;
  };
  const state = () => departures.latest('gw-1')?.state;
  return { database, departures, events, asked, session, state };
}

const transfer = './GwOwner/Transfer';
const withdraw = './GwOwner/Withdraw';

describe('an order to leave that is taken back', () => {
  test('one that was never sent is cancelled at once', async () => {
    const { departures, session, state } = rig();
    departures.order('gw-1', 'ann', next);
    departures.cancel('gw-1', 'transfer');
    assert.equal(state(), 'cancelled');
    assert.deepEqual(await session(() => 202), []);
  });

  test('a transfer whose answer was lost may be at the gateway: it confirms, also in the next run', async () => {
    const { database, departures, session, state } = rig();
    departures.order('gw-1', 'ann', next);
    assert.deepEqual(await session(() => undefined), [transfer]);
    assert.equal(state(), 'given');
    departures.cancel('gw-1', 'transfer');
    assert.equal(state(), 'withdrawing');
    const again = rig(database);
    again.departures.gatewayOnline('gw-1');
    assert.deepEqual(again.asked, ['gw-1']);
    for (const passing of [undefined, 500, 420]) {
      assert.deepEqual(await again.session(() => passing), [withdraw]);
      assert.equal(again.state(), 'withdrawing');
    }
    assert.deepEqual(await again.session(() => 202), [withdraw]);
    assert.equal(again.state(), 'cancelled');
    assert.deepEqual(await again.session(() => 202), []);
  });

  test('a transfer that is taken back while it is being sent is withdrawn in the same session', async () => {
    const { departures, session, state } = rig();
    departures.order('gw-1', 'ann', next);
    const executed = await session((uri) => {
      if (uri === transfer) departures.cancel('gw-1', 'transfer');
      return 202;
    });
    assert.deepEqual([executed, state()], [[transfer, withdraw], 'cancelled']);
  });

  test('a gateway that has its next owner refuses: the order is accepted again, and ends with its word', async () => {
    const { departures, session, state, events } = rig();
    departures.order('gw-1', 'ann', next);
    await session(() => 202);
    departures.cancel('gw-1', 'transfer');
    await session(() => 409);
    assert.equal(state(), 'accepted');
    assert.match(departures.latest('gw-1')?.reason ?? '', /cannot be taken back: .* 409/);
    assert.equal(events.count('gateway.departure-refused'), 1);
    departures.alerted('gw-1', 'transferred', 'by order of dm.example');
    assert.equal(state(), 'done');
    const departed = events.all.find(({ name }) => name === 'gateway.departed');
    assert.deepEqual(departed?.fields, { gateway: 'gw-1', by: 'ann', order: 'transfer' });
  });

  test('a gateway that passes on although the transfer was cancelled is said to have passed on', async () => {
    const { departures, session, events } = rig();
    departures.order('gw-1', 'ann', next);
    await session(() => 202);
    departures.cancel('gw-1', 'transfer');
    await session(() => 202);
    departures.alerted('gw-1', 'transferred', 'by order of dm.example');
    const departed = events.all.find(({ name }) => name === 'gateway.departed');
    assert.deepEqual(departed?.fields, { gateway: 'gw-1', by: 'the gateway itself', order: 'transfer' });
  });

  test('a failure of the next owner ends a transfer that is being taken back', async () => {
    const { departures, session, state, events } = rig();
    departures.order('gw-1', 'ann', next);
    await session(() => 202);
    departures.cancel('gw-1', 'transfer');
    departures.alerted('gw-1', 'transfer', 'dm.next: no such code');
    assert.deepEqual([state(), events.count('gateway.departure-refused')], ['cancelled', 0]);
  });

  test('a decommission that was sent cannot be taken back; one that the disk of the gateway refused can', async () => {
    const { departures, session, state } = rig();
    departures.order('gw-1', 'ann');
    await session(() => undefined);
    assert.throws(() => departures.cancel('gw-1', 'decommission'), { code: 'conflict' });
    await session(() => 420);
    assert.equal(state(), 'ordered');
    departures.cancel('gw-1', 'decommission');
    assert.equal(state(), 'cancelled');
  });

  test('no other transfer takes the place of one that the gateway may have; a decommission does', async () => {
    const { departures, session, state } = rig();
    departures.order('gw-1', 'ann', next);
    for (const change of [
      () => session(() => undefined),
      () => session(() => 202),
      () => departures.cancel('gw-1', 'transfer'),
    ]) {
      await change();
      assert.throws(() => departures.order('gw-1', 'bob', next), { code: 'conflict' });
    }
    departures.order('gw-1', 'bob');
    assert.deepEqual(await session(() => 202), ['./GwOwner/Decommission']);
    assert.equal(state(), 'accepted');
  });
});
