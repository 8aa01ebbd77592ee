import assert from 'node:assert/strict';
import { test } from 'node:test';
import { slopePerHour } from './slope.ts';

test('the slope of a line is exact, with noise around it as well, and nothing is no slope', () => {
  const line = Array.from({ length: 60 }, (_, minute) => ({ minute, value: 100 + minute * 0.5 }));
  assert.equal(Math.round(slopePerHour(line) * 1000), 30_000);
  const noisy = line.map(({ minute, value }) => ({ minute, value: value + (minute % 2 ? 3 : -3) }));
  assert.ok(Math.abs(slopePerHour(noisy) - 30) < 1);
  assert.deepEqual([slopePerHour([]), slopePerHour([{ minute: 1, value: 5 }])], [0, 0]);
});
