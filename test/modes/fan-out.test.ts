import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PosternError } from '../../src/base/errors.ts';
import type { OperationOutcome } from '../../src/dm/server-session.ts';
import { type FanoutOrder, operationsOf } from '../../src/mo/fanout-order.ts';
import { FanOut, fanOutLimits } from '../../src/modes/fan-out.ts';
import type { ManageOptions } from '../../src/modes/proxy.ts';
import { openDatabase } from '../../src/store/database.ts';
import { Fanouts } from '../../src/store/fanouts.ts';
import { turn } from '../coap/wire.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

const replace =
  '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>x</Data></Item></Replace>';
const exec = '<Exec><CmdID>1</CmdID><Item><Target><LocURI>./Do</LocURI></Target></Item></Exec>';
const many = (count: number) => Array.from({ length: count }, (_, at) => `d${String(at).padStart(4, '0')}`);
const order = (devices: readonly string[], more: Partial<FanoutOrder> = {}): FanoutOrder => ({
  name: 'f',
  operations: operationsOf(replace),
  devices,
  returnFormat: 3,
  timeout: 60_000,
  deadline: 3_600_000,
  ...more,
});

interface Call {
  readonly device: string;
  readonly options: ManageOptions;
  readonly resolve: (status: number) => void;
  readonly reject: (error: PosternError) => void;
}

/** A fan-out whose devices answer when the test says so. */
function rig(database = openDatabase(':memory:'), current: FanoutOrder = order([])) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const calls: Call[] = [];
  const results: [string | undefined, string][] = [];
  const fanOut = new FanOut({
    fanouts: new Fanouts(database),
    clock,
    events,
    order: () => current,
    manage: (device, operations, options) => {
      const { promise, resolve, reject } = Promise.withResolvers<readonly OperationOutcome[]>();
      options.signal?.addEventListener('abort', () => reject(options.signal?.reason));
      const answer = (status: number) =>
        resolve(operations.map((operation) => ({ operation, status, results: [] })));
      calls.push({ device, options, resolve: answer, reject });
      return promise;
    },
    ended: (_name, correlator, result) => results.push([correlator, result]),
  });
  return { database, clock, events, calls, results, fanOut };
}

describe('a fan-out', () => {
  // conforms: GW-11, GW-12
  test('of many devices keeps to its bound in parallel, and says the same of all in one line', async () => {
    const { fanOut, calls, results, clock } = rig();
    assert.equal(fanOut.start(order(many(1000)), 'c-1'), 202);
    let most = 0;
    for (let at = 0; at < 1000; at++) {
      while (calls.length <= at) await turn();
      most = Math.max(most, calls.length - at);
      calls[at]?.resolve(200);
    }
    while (results.length === 0) await turn();
    assert.equal(most, fanOutLimits.parallel);
    assert.deepEqual(results, [
      [
        'c-1',
        '<FanoutResult Total="1000" Done="1000" Failed="0" Pending="0"><Group Status="200" Commands="200" Count="1000"/></FanoutResult>',
      ],
    ]);
    assert.equal(clock.timers, 0);
  });

  // conforms: GW-12
  test('names who failed, and why', async () => {
    const { fanOut, calls, results } = rig();
    fanOut.start(order(['a', 'b', 'c', '<d>']), undefined);
    await turn();
    const call = (device: string) => calls.find((each) => each.device === device);
    call('a')?.resolve(200);
    call('b')?.resolve(425);
    call('c')?.reject(new PosternError('timeout', 'no'));
    call('<d>')?.reject(new PosternError('notFound', 'no'));
    while (results.length === 0) await turn();
    assert.equal(
      results[0]?.[1],
      '<FanoutResult Total="4" Done="1" Failed="3" Pending="0"><Group Status="404" Commands="" Count="1"><Device ID="&lt;d&gt;"/></Group><Group Status="200" Commands="200" Count="1"/><Group Status="425" Commands="425" Count="1"><Device ID="b"/></Group><Group Status="408" Commands="" Count="1"><Device ID="c"/></Group></FanoutResult>',
    );
  });

  // conforms: GW-11
  test('that is cancelled leaves alone whom it has not reached', async () => {
    const { fanOut, calls, results } = rig();
    fanOut.start(order(many(20)), undefined);
    await turn();
    assert.equal(fanOut.cancel('f'), 200);
    for (const call of calls) call.resolve(200);
    while (results.length === 0) await turn();
    const { state, done, failed } = fanOut.summary('f');
    assert.deepEqual([state, done, failed, calls.length], [3, 16, 4, 16]);
    assert.match(results[0]?.[1] ?? '', /<Group Status="214" Commands="" Count="4">/);
    assert.equal(fanOut.cancel('f'), 404);
  });

  // conforms: GW-11
  test('at its deadline reports what there is', async () => {
    const { fanOut, calls, clock, results } = rig();
    fanOut.start(order(many(17)), undefined);
    await turn();
    clock.advance(3_600_000);
    for (const call of calls) call.resolve(200);
    while (results.length === 0) await turn();
    assert.match(results[0]?.[1] ?? '', /<Group Status="408" Commands="" Count="1"><Device ID="d0016"\/>/);
  });

  test('without a device is 200 and reports nothing; one that runs is not started again; too many are refused', async () => {
    const { fanOut, results } = rig();
    assert.equal(fanOut.start(order([]), 'c'), 200);
    for (let at = 0; at < fanOutLimits.running; at++)
      fanOut.start(order(['a'], { name: `f${at}` }), undefined);
    assert.throws(() => fanOut.start(order(['a'], { name: 'f0' }), undefined), { code: 'conflict' });
    assert.throws(() => fanOut.start(order(['a'], { name: 'more' }), undefined), { code: 'full' });
    await fanOut[Symbol.asyncDispose]();
    assert.deepEqual(results, []);
  });
});

describe('after a restart', () => {
  const restart = async (command: string) => {
    const current = order(['a', 'b', 'c'], { operations: operationsOf(command) });
    const before = rig(undefined, current);
    before.fanOut.start(current, 'c-9');
    await turn();
    before.calls[0]?.options.begun?.();
    before.calls[1]?.options.begun?.();
    before.calls[1]?.resolve(200);
    await turn();
    await before.fanOut[Symbol.asyncDispose]();
    assert.deepEqual(before.results, []);
    const after = rig(before.database, current);
    after.fanOut.resume();
    await turn();
    return after;
  };

  // conforms: GW-13
  test('it goes on with whom it had not done, and with whom it had begun if that may be done twice', async () => {
    const { calls, results } = await restart(replace);
    assert.deepEqual(
      calls.map(({ device }) => device),
      ['a', 'c'],
    );
    for (const call of calls) call.resolve(200);
    while (results.length === 0) await turn();
    assert.deepEqual(results[0], [
      'c-9',
      '<FanoutResult Total="3" Done="3" Failed="0" Pending="0"><Group Status="200" Commands="200" Count="3"/></FanoutResult>',
    ]);
  });

  // conforms: GW-13
  test('an Exec that had begun is not sent again: nobody knows what it did', async () => {
    const { calls, results } = await restart(exec);
    assert.deepEqual(
      calls.map(({ device }) => device),
      ['c'],
    );
    calls[0]?.resolve(200);
    while (results.length === 0) await turn();
    assert.match(results[0]?.[1] ?? '', /<Group Status="500" Commands="" Count="1"><Device ID="a"\/>/);
  });
});

describe('the commands of a fan-out', () => {
  test('any command, Atomic and Sequence, in one form or the other', () => {
    const atomic = `<SyncBody><Atomic><CmdID>1</CmdID>${replace}${exec}</Atomic></SyncBody>`;
    assert.deepEqual(
      operationsOf(atomic).map(
        (operation) => 'operations' in operation && operation.operations.map(({ name }) => name),
      ),
      [['Replace', 'Exec']],
    );
    assert.equal(operationsOf(replace + exec).length, 2);
  });

  for (const [what, command, code] of [
    ['nothing', '', 'malformed'],
    ['no XML', '<Replace', 'malformed'],
    [
      'a Status',
      '<Status><CmdID>1</CmdID><MsgRef>1</MsgRef><CmdRef>1</CmdRef><Cmd>Get</Cmd><Data>200</Data></Status>',
      'malformed',
    ],
    ['no target', '<Get><CmdID>1</CmdID><Item/></Get>', 'malformed'],
    ['an alert that is no question', '<Alert><CmdID>1</CmdID><Data>1223</Data></Alert>', 'malformed'],
    ['too many', replace.repeat(65), 'tooLarge'],
  ] as const)
    test(`${what} is refused`, () => {
      assert.throws(() => operationsOf(command), { code });
    });
});
