import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { PosternError } from '../../../src/base/errors.ts';
import { isNews, pollLimits, ValuePoller, valueIn } from '../../../src/gateway/modes/value-poller.ts';
import type { ObservationOrder } from '../../../src/mo/observation-order.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

const order = (more: Partial<ObservationOrder> = {}): ObservationOrder => ({
  ...{
    name: 'o',
    server: 'dm',
    targets: { named: new Set<string>(), conditions: [] },
    paths: ['/Sensor/Temp'],
  },
  ...{ attributes: { pmax: 100 }, period: 60, count: 0, lifetime: 0, ...more },
});

interface Asked {
  readonly device: string;
  readonly at: number;
  readonly away: (() => void) | undefined;
  readonly answer: (data: string, status?: number) => Promise<void>;
  readonly fail: (thrown: unknown) => Promise<void>;
}

function rig() {
  const clock = new HandClock();
  const asked: Asked[] = [];
  const told: [device: string, value: unknown][] = [];
  const silent = new Set<string>();
  const start = clock.now();
  const poller = new ValuePoller({
    manage: (device, operations, { away }) => {
      const { promise, resolve, reject } = Promise.withResolvers<never>();
      const answer = async (data: string, status = 200) => {
        const results = status === 200 ? [{ uri: '', format: 'float', data }] : [];
        resolve(operations.map((operation) => ({ operation, status, results })) as never);
        await turn();
      };
      const fail = async (thrown: unknown) => {
        reject(thrown);
        await turn();
      };
      asked.push({ device, at: clock.now() - start, away, answer, fail });
      return promise;
    },
    isReachable: (device) => !silent.has(device),
    values: (device, _, values) =>
      told.push(...values.map(({ value }) => [device, value] as [string, unknown])),
    clock,
    events: new EventRecorder(),
  });
  return { clock, asked, told, silent, poller };
}

test('devices take turns that are spread over the period', async () => {
  const { clock, asked, poller } = rig();
  for (const device of ['a', 'b', 'c', 'd']) poller.add(device, order());
  for (let n = 0; n < 8; n++) {
    clock.advance(25_000);
    await asked.at(-1)?.answer('1');
  }
  assert.deepEqual(
    asked.map(({ device, at }) => `${device} ${at}`),
    ['a 20', 'b 25020', 'c 50020', 'd 75020', 'a 100020', 'b 125020', 'c 150020', 'd 175020'],
  );
  poller.stop();
  assert.equal(clock.timers, 0);
});

test('each device is asked once in a period, and one that is slow not twice at a time', async () => {
  const { clock, asked, poller } = rig();
  poller.add('slow', order());
  poller.add('quick', order());
  for (let n = 0; n < 8; n++) {
    clock.advance(50_000);
    for (const { device, answer } of asked) if (device === 'quick') await answer('1');
  }
  const times = (name: string) => asked.filter(({ device }) => device === name).length;
  assert.deepEqual([times('slow'), times('quick')], [1, 4]);
  poller.stop();
});

test('no more sessions at a time than the bound, and a device that does not answer gives its place back', async () => {
  const { clock, asked, poller } = rig();
  for (let n = 0; n < pollLimits.parallel + 4; n++) poller.add(`d${n}`, order());
  clock.advance(100_000);
  assert.equal(asked.length, pollLimits.parallel);
  asked[0]?.away?.();
  asked[0]?.away?.();
  clock.advance(100_000);
  assert.equal(asked.length, pollLimits.parallel + 1);
  poller.stop();
});

test('states: waiting, observing, refused with the status; a device that is unreachable is not asked', async () => {
  const { clock, asked, poller, told, silent } = rig();
  poller.add('a', order());
  const state = () => poller.stateOf('a', 'o');
  assert.deepEqual(state(), { state: 'waiting' });
  clock.advance(20);
  await asked[0]?.answer('21.5');
  assert.deepEqual([state(), told], [{ state: 'observing' }, [['a', 21.5]]]);
  clock.advance(100_000);
  await asked[1]?.answer('', 404);
  assert.deepEqual(state(), { state: 'refused', reason: 'the device answers 404' });
  clock.advance(100_000);
  await asked[2]?.fail(new PosternError('timeout', 'no session'));
  assert.deepEqual(state(), { state: 'waiting' });
  silent.add('a');
  clock.advance(500_000);
  assert.equal(asked.length, 3);
  silent.delete('a');
  clock.advance(100_000);
  assert.equal(asked.length, 4);
  poller.stop();
});

test('an answer that comes after the end of the observation, or to a device that has left, tells nothing', async () => {
  const { clock, asked, poller, told } = rig();
  poller.add('a', order());
  poller.add('b', order());
  clock.advance(100_000);
  poller.drop('a', 'o');
  await asked[0]?.answer('1');
  poller.end('o');
  await asked[1]?.answer('1');
  assert.deepEqual([asked.length, told], [2, []]);
  assert.equal(clock.timers, 0);
});

test('with gt, lt or st the gateway tells the values that meet them', async () => {
  const { clock, asked, poller, told } = rig();
  poller.add('a', order({ attributes: { pmax: 10, gt: 30 } }));
  for (const value of [20, 25, 31, 32, 29, 30]) {
    clock.advance(10_000);
    await asked.at(-1)?.answer(String(value));
  }
  assert.deepEqual(
    told.map(([, value]) => value),
    [20, 31, 29],
  );
  poller.stop();
});

describe('whether a value is news', () => {
  const cases: readonly [string, ...Parameters<typeof isNews>, boolean][] = [
    ['the first one', undefined, 1, { st: 5 }, true],
    ['any, without a condition', 1, 1, { pmin: 1 }, true],
    ['above gt from below', 29, 31, { gt: 30 }, true],
    ['below gt from above', 31, 29, { gt: 30 }, true],
    ['still above gt', 31, 35, { gt: 30 }, false],
    ['at gt from below', 29, 30, { gt: 30 }, false],
    ['above gt from gt', 30, 31, { gt: 30 }, true],
    ['below lt from above', 11, 9, { lt: 10 }, true],
    ['at lt from above', 11, 10, { lt: 10 }, false],
    ['a step of st', 20, 22, { st: 2 }, true],
    ['a step back', 20, 18, { st: 2 }, true],
    ['less than st', 20, 21.9, { st: 2 }, false],
    ['a step, between gt and lt', 20, 25, { gt: 30, lt: 10, st: 5 }, true],
    ['another text', 'on', 'off', { gt: 1 }, true],
    ['the same text', 'on', 'on', { gt: 1 }, false],
    ['octets', Buffer.of(1), Buffer.of(1), { gt: 1 }, true],
    ['a switch', false, true, { st: 1 }, true],
  ];
  for (const [name, before, value, attributes, expected] of cases)
    test(name, () => assert.equal(isNews(before, value, attributes), expected));
});

describe('the value of a leaf has the type of its format', () => {
  const cases: readonly [format: string, data: string | Uint8Array, value: unknown][] = [
    ['int', '-7', -7],
    ['int', '9223372036854775807', 9223372036854775807n],
    ['int', '99999999999999999999', '99999999999999999999'],
    ['int', '', ''],
    ['int', 'seven', 'seven'],
    ['float', '21.5', 21.5],
    ['float', '1e400', '1e400'],
    ['bool', 'true', true],
    ['bool', 'yes', 'yes'],
    ['chr', '7', '7'],
    ['bin', Buffer.of(1), Buffer.of(1)],
  ];
  for (const [format, data, value] of cases)
    test(`${format} ${String(data)}`, () => assert.deepEqual(valueIn({ format, data }), value));
});
