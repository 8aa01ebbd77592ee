import assert from 'node:assert/strict';
import { test } from 'node:test';
import { longEnough, partsOf, type Sample, slopeLimits, slopePerHour } from './slope.ts';

test('the slope of a line is exact, with noise around it as well, and nothing is no slope', () => {
  const line = Array.from({ length: 60 }, (_, minute) => ({ minute, value: 100 + minute * 0.5 }));
  assert.equal(Math.round(slopePerHour(line) * 1000), 30_000);
  const noisy = line.map(({ minute, value }) => ({ minute, value: value + (minute % 2 ? 3 : -3) }));
  assert.ok(Math.abs(slopePerHour(noisy) - 30) < 1);
  assert.deepEqual([slopePerHour([]), slopePerHour([{ minute: 1, value: 5 }])], [0, 0]);
});

/**
 * Megabytes after collections, as a gateway with 2,000 devices shows them: its caches fill after the last start, each device
 * is heard about every 333 seconds, and the values scatter.
 * @param leak bytes that each change of a device leaves behind, six times a second
 */
function soak(minutes: number, leak: number): Sample[] {
  const { restarts, measured } = partsOf(minutes);
  const samples: Sample[] = [];
  for (let minute = measured; minute < minutes; minute += 0.5) {
    const since = (minute - restarts) * 60;
    const scatter = Math.sin(minute * 7) * 0.8;
    samples.push({
      minute,
      value: 24 + 3 * (1 - Math.exp(-since / 333)) + (since * 6 * leak) / 2 ** 20 + scatter,
    });
  }
  return samples;
}

test('in the shortest soak with targets, warm caches are no growth, and 300 bytes that each change leaves behind are', () => {
  assert.ok(slopePerHour(soak(longEnough, 0)) < slopeLimits.liveMegabytes);
  assert.ok(slopePerHour(soak(longEnough, 300)) > slopeLimits.liveMegabytes);
});
