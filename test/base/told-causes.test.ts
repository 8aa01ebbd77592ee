import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ToldCauses } from '../../src/base/told-causes.ts';
import { HandClock } from '../hand-clock.ts';

test('a cause is told at once, then with its count once in a period; causes do not count for one another', () => {
  const clock = new HandClock();
  const causes = new ToldCauses({ period: 1000, causes: 10 }, clock);
  assert.equal(causes.count('a'), 1);
  assert.equal(causes.count('a'), undefined);
  assert.equal(causes.count('b'), 1);
  clock.advance(999);
  assert.equal(causes.count('a'), undefined);
  clock.advance(1);
  assert.equal(causes.count('a'), 3);
  assert.equal(causes.count('a'), undefined);
});

test('ten thousand causes: the bound is kept, and a cause that was forgotten is told at once', () => {
  const causes = new ToldCauses({ period: 1000, causes: 10 }, new HandClock());
  for (let at = 0; at < 10_000; at++) assert.equal(causes.count(`cause ${at}`), 1);
  assert.equal(causes.count('cause 9990'), undefined);
  assert.equal(causes.count('cause 9989'), 1);
});
