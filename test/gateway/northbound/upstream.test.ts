import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { noEvents } from '../../../src/base/events.ts';
import { Upstream } from '../../../src/gateway/northbound/upstream.ts';
import { HandClock } from '../../hand-clock.ts';

test('beyond the bound of packages that wait: full; without a broker: unavailable; and nothing stays', async () => {
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
