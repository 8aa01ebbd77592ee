import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { noEvents } from '../../../src/base/events.ts';
import { Upstream } from '../../../src/gateway/northbound/upstream.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

test('a package beyond the bound is refused as full, packages without a broker fail as unavailable', async () => {
  const clock = new HandClock();
  const upstream = new Upstream(
    {
      gatewayId: 'gw-1',
      settings: { url: 'mqtt://127.0.0.1:1', protocol: 'auto' },
      softwareVersion: '0',
      clock,
      entropy: seededEntropy(1),
      events: noEvents,
    },
    1000,
  );
  const request = { server: 'dm.example', contentType: 'text/plain', body: Buffer.from('x') };
  const all = Array.from({ length: 1025 }, () => upstream.request(request));
  const codes = (await Promise.allSettled(all)).map((one) =>
    one.status === 'rejected' ? one.reason.code : 'ok',
  );
  assert.deepEqual([codes[0], codes[1023], codes[1024]], ['unavailable', 'unavailable', 'full']);
  assert.deepEqual([upstream.pending, clock.timers], [0, 0]);
});

test('credentials in the URL of the broker do not appear in events or status', async () => {
  const events = new EventRecorder();
  const parts = {
    gatewayId: 'gw-1',
    softwareVersion: '0',
    clock: new HandClock(),
    entropy: seededEntropy(1),
    events,
  };
  const settings = { url: 'mqtt://someone:swordfish@127.0.0.1:1', protocol: 5 } as const;
  await using upstream = new Upstream({ ...parts, settings }, 1000);
  upstream.start({ notified: async () => {}, connected: () => {}, disconnected: () => {} });
  const { fields } = await events.until('mqtt.connect-failed');
  assert.equal(fields.url, 'mqtt://127.0.0.1:1');
  assert.doesNotMatch(JSON.stringify([events.all, upstream.description]), /someone|swordfish/);
});
