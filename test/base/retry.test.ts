import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { backoff } from '../../src/base/retry.ts';

test('delays double up to the cap and are spread there too', () => {
  const delays = backoff({ first: 100, cap: 800, jitter: 0.25 }, seededEntropy(7)).take(40).toArray();
  for (const [step, delay] of delays.entries()) {
    const centre = Math.min(800, 100 * 2 ** step);
    assert.ok(delay >= centre * 0.75 && delay <= centre * 1.25, `step ${step}: ${delay}`);
  }
  assert.ok(new Set(delays.slice(10)).size > 10, 'no jitter at the cap');
});
