import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { DeviceQuestions } from '../../../src/gateway/southbound/device-questions.ts';
import { nothingAt, unproven } from '../../../src/gateway/southbound/presence.ts';
import { HandClock } from '../../hand-clock.ts';

const uri = 'coaps://192.0.2.1:7';
const known = { address: '192.0.2.1', port: 7, proven: true };
const elsewhere = { address: '198.51.100.1', port: 1, key: '198.51.100.1|1' };

/** Questions to an attached device. `ping` and `session` are what comes of the two ways to ask. */
function asking(ping: () => boolean, session: () => void = () => {}) {
  const clock = new HandClock();
  return new DeviceQuestions({
    inventory: { get: () => ({ state: 'attached', address: 'coap://192.0.2.1:7' }) as never },
    addresses: { get: () => known, successorOf: () => undefined },
    locator: { isInReach: () => true, answers: async () => ping(), uriOf: () => uri },
    arrivals: { lastOf: () => clock.now(), next: async () => false },
    requestSession: async () => session(),
    askClient: undefined,
    askCoapDevice: undefined,
    clock,
  });
}
const full = () => {
  throw new PosternError('full', 'too many');
};

describe('what is full says nothing of a device', () => {
  test('a ping that cannot be sent neither makes a device unreachable nor gives its place away', async () => {
    const questions = asking(full);
    assert.equal(await questions.ask('a'), unproven);
    await assert.rejects(questions.livesElsewhere('a', elsewhere), { code: 'full' });
  });

  test('nor does a session that cannot be asked for', async () => {
    const questions = asking(() => true, full);
    await assert.rejects(questions.livesElsewhere('a', elsewhere), { code: 'full' });
  });

  test('a device that is silent, or cannot prove itself, gives its place', async () => {
    assert.deepEqual(await asking(() => false).ask('a'), nothingAt(uri));
    assert.equal(await asking(() => false).livesElsewhere('a', elsewhere), false);
    assert.equal(await asking(() => true).livesElsewhere('a', elsewhere), false);
  });
});
