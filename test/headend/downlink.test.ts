import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { seededEntropy } from '../../src/base/entropy.ts';
import { Downlink, notificationLimit } from '../../src/headend/downlink.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { startHostileBroker } from '../peers/hostile-broker.ts';

test('a notification that the broker does not take ends in its time, and nothing is left behind', {
  timeout: 30_000,
}, async () => {
  await using broker = await startHostileBroker({ published: () => false });
  const clock = new HandClock();
  const events = new EventRecorder();
  await using downlink = new Downlink({
    group: undefined,
    route: 'r1',
    serverId: 'dm.example',
    gatewayRate: 500,
    settings: { url: broker.url, protocol: 5 },
    clock,
    entropy: seededEntropy(1),
    events,
  });
  downlink.start({
    isProven: () => true,
    answerPackage: () => Promise.reject(new Error('none comes')),
    gatewayStateChanged: () => {},
  });
  await events.until('mqtt.connected');
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);
  process.on('unhandledRejection', note);
  try {
    const delivery = downlink.deliverNotification('gw-1', undefined, Buffer.of(1));
    const failed = assert.rejects(delivery, { code: 'timeout' });
    while (broker.publishes.length === 0) await turn();
    clock.advance(30_000);
    for (let i = 0; i < 10; i++) await turn();
    await failed;
    assert.deepEqual(unhandled, []);
  } finally {
    process.off('unhandledRejection', note);
  }
});

test('the outcomes of a bounded number of notifications are awaited; a further one is refused until others have ended', {
  timeout: 60_000,
}, async () => {
  await using broker = await startHostileBroker({});
  const clock = new HandClock();
  const events = new EventRecorder();
  await using downlink = new Downlink({
    ...{ route: 'r1', serverId: 'dm.example', gatewayRate: 500, clock, events },
    settings: { url: broker.url, protocol: 5 },
    entropy: seededEntropy(1),
  });
  downlink.start({
    isProven: () => true,
    answerPackage: () => Promise.reject(new Error('none comes')),
    gatewayStateChanged: () => {},
  });
  await events.until('mqtt.connected');
  const outcomes: string[] = [];
  const notify = () =>
    downlink
      .deliverNotification('gw-1', 'urn:dev:silent', Buffer.of(1))
      .catch(({ code }) => void outcomes.push(code));
  const waiting = Array.from({ length: notificationLimit }, notify);
  await notify();
  await notify();
  assert.deepEqual(outcomes.splice(0), ['full', 'full']);
  while (broker.publishes.length < notificationLimit) await turn();
  clock.advance(30_000);
  await Promise.all(waiting);
  assert.deepEqual(new Set(outcomes.splice(0)), new Set(['timeout']));
  const again = notify();
  await turn();
  clock.advance(30_000);
  await again;
  // With the time, the connection to the broker has ended too.
  assert.notEqual(outcomes[0], 'full', 'there is room again');
});
