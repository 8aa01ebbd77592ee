import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { PosternError } from '../../src/base/errors.ts';
import { noEvents } from '../../src/base/events.ts';
import { untilAttached } from '../../src/device/attachment.ts';
import { HandClock } from '../hand-clock.ts';
import { turn } from '../wire/coap/wire.ts';

/** Milliseconds between the attempts of a device whose attempts fail with these errors, one after the other. */
async function pausesAfter(errors: readonly PosternError[], seed: number): Promise<number[]> {
  const clock = new HandClock();
  const attempts: number[] = [];
  const attached = untilAttached(
    {
      deviceId: 'urn:dev:x',
      clock,
      entropy: seededEntropy(seed),
      events: noEvents,
      signal: new AbortController().signal,
    },
    async () => {
      attempts.push(clock.now());
      const error = errors[attempts.length - 1];
      if (error) throw error;
    },
  );
  for (await turn(); clock.next !== undefined; await turn()) clock.advance(clock.next);
  await attached;
  return attempts.slice(1).map((at, index) => at - attempts[index]!);
}

test('a device does not come back before the time that a busy gateway says, and a crowd comes back spread out', async () => {
  const busy = new PosternError('unavailable', 'too many sessions', { retryAfter: 5 });
  const firsts = new Set<number>();
  for (let seed = 1; seed <= 20; seed++) {
    const [first, second] = await pausesAfter([busy, busy], seed);
    for (const pause of [first!, second!])
      assert.ok(pause >= 5000 && pause <= 7500, `seed ${seed}: ${pause}`);
    firsts.add(first!);
  }
  assert.ok(firsts.size >= 15, 'not all at one moment');
});

test('a gateway that says nothing, or too much, has a device wait as long as the device itself decides', async () => {
  const [silent] = await pausesAfter([new PosternError('unavailable', 'no')], 1);
  assert.ok(silent! >= 500 && silent! <= 1500, `${silent}`);
  const [lying] = await pausesAfter(
    [new PosternError('unavailable', 'no', { retryAfter: 4_294_967_295 })],
    1,
  );
  assert.ok(lying! >= 5000 && lying! <= 7500, `${lying}`);
});
