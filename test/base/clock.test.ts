import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { type Clock, pause, SystemClock } from '../../src/base/clock.ts';
import { HandClock } from '../hand-clock.ts';

const day = 24 * 60 * 60 * 1000;

/** Resolves when a timer of the clock fires, with the milliseconds that it took. */
async function measured(clock: Clock, delay: number): Promise<number> {
  const begun = clock.now();
  await pause(clock, delay);
  return clock.now() - begun;
}

describe('a timer takes any length', () => {
  test('a timer of 25 days, or one without an end, does not fire at once', async () => {
    const clock = new SystemClock();
    let warnings = 0;
    const warned = () => warnings++;
    process.on('warning', warned);
    const fired: number[] = [];
    const timers = [25 * day, 365 * day, 2 ** 53, Number.POSITIVE_INFINITY].map((delay) =>
      clock.after(delay, () => fired.push(delay)),
    );
    // Node fires a timer that is too long after one millisecond, so a later one shows that none of them fired.
    await pause(clock, 20);
    for (const timer of timers) timer.cancel();
    process.off('warning', warned);
    assert.deepEqual([fired, warnings], [[], 0]);
  });

  test('the longest delay of one timer of Node, and one millisecond more, do not fire at once', async () => {
    const clock = new SystemClock();
    const fired: number[] = [];
    const timers = [2 ** 31 - 1, 2 ** 31].map((delay) => clock.after(delay, () => fired.push(delay)));
    await pause(clock, 20);
    for (const timer of timers) timer.cancel();
    assert.deepEqual(fired, []);
  });

  test('a delay of several parts fires at its time', async () => {
    const clock = new SystemClock(undefined, 20);
    for (const delay of [1, 19, 20, 21, 40, 110]) {
      const took = await measured(clock, delay);
      // A timer of Node may fire up to a millisecond early.
      assert.ok(took >= delay - 1, `${delay} ms took ${took} ms`);
    }
  });

  test('a delay of several parts can be cancelled in each part, and holds no timer then', async () => {
    const clock = new SystemClock(undefined, 10);
    let fired = 0;
    for (const at of [0, 15, 35]) {
      const timer = clock.after(1000, () => fired++);
      await pause(clock, at);
      timer.cancel();
      timer.cancel();
    }
    assert.deepEqual([fired, process.getActiveResourcesInfo().filter((name) => name === 'Timeout')], [0, []]);
  });

  test('a pause of years ends with its signal', async () => {
    const stop = new AbortController();
    const waiting = pause(new SystemClock(), 900 * day, stop.signal);
    setImmediate(() => stop.abort(new Error('stopped')));
    await once(stop.signal, 'abort');
    await assert.rejects(waiting, { message: 'stopped' });
  });

  test('the clock of the tests does the same', () => {
    const clock = new HandClock();
    const fired: number[] = [];
    for (const days of [25, 400, Number.POSITIVE_INFINITY]) clock.after(days * day, () => fired.push(days));
    clock.advance(25 * day - 1);
    assert.deepEqual(fired, []);
    clock.advance(1);
    assert.deepEqual(fired, [25]);
    clock.advance(375 * day);
    assert.deepEqual([fired, clock.timers], [[25, 400], 1]);
  });
});
