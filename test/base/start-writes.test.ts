import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PosternError } from '../../src/base/errors.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { writeAtStart } from '../../src/base/start-writes.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

/** Work that a disk refuses so many times. */
function start(refusals: number) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const database = openDatabase(':memory:', gatewaySchema);
  let attempts = 0;
  writeAtStart({ database, clock, events }, () => {
    if (++attempts <= refusals) throw new PosternError('storage', 'the disk is full');
  });
  return { clock, database, attempts: () => attempts };
}

test('what the disk refuses at a start is tried again by the clock, after pauses that double up to five minutes', () => {
  const { clock, attempts } = start(9);
  const at: number[] = [];
  for (let seconds = 0, before = attempts(); clock.timers > 0; seconds += 5, before = attempts()) {
    clock.advance(5000);
    if (attempts() > before) at.push(seconds + 5);
  }
  assert.deepEqual(at, [5, 15, 35, 75, 155, 315, 615, 915, 1215]);
  assert.equal(attempts(), 10);
});

test('what is written is not written again, and no attempt comes after the end', async () => {
  const done = start(0);
  assert.deepEqual([done.attempts(), done.clock.timers], [1, 0]);
  const ended = start(Number.POSITIVE_INFINITY);
  await ended.database.close();
  assert.deepEqual([ended.attempts(), ended.clock.timers], [1, 0]);
});

test('an error that is not the fault of the disk ends the start', () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const work = () => {
    throw new PosternError('configuration', 'two accounts');
  };
  assert.throws(() => writeAtStart({ database, clock: new HandClock(), events: new EventRecorder() }, work), {
    code: 'configuration',
  });
});
