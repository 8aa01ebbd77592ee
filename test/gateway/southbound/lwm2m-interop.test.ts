import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Site } from '../../journeys/site.ts';
import { startAedes } from '../../peers/brokers.ts';
import { StockLwM2mClient } from '../../peers/lwm2m-client.ts';

const id = 'stock-1';

// conforms: GW-26
test('a third-party LwM2M client registers, is managed by DM commands, and deregisters', {
  timeout: 60_000,
}, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const gateway = await site.gateway([], { lwm2m: { device: [{ id }], 'insecure-no-security': true } });
  await using client = new StockLwM2mClient(id, gateway.coapPort);
  assert.deepEqual(await client.next(), { kind: 'registered', status: '2.01' });
  await site.gatewayEvents.until('registration.proven', { device: id, manufacturer: 'sivann' });

  const gets = ['./3303/0', './3303/0/5700', './DevInfo/Mod', './3311/0/5850'] as const;
  const outcomes = await gateway.manage(
    id,
    [
      ...gets.map((uri) => ({ name: 'Get', uri }) as const),
      { name: 'Replace', uri: './3311/0/5850', data: 'true' },
      { name: 'Replace', uri: './3311/0/5851', data: '70' },
      { name: 'Get', uri: './3311/0?list=StructData' },
      { name: 'Get', uri: './9/0/0' },
    ],
    20_000,
  );
  assert.deepEqual(
    outcomes.map(({ status, results }) => [status, results.map(({ data }) => data).join(' ')]),
    [
      [200, '5700/5701'],
      [200, '21'],
      [200, 'cnode-01'],
      [200, 'false'],
      [200, ''],
      [200, ''],
      [200, '5850/5851 true 70'],
      [404, ''],
    ],
  );
  assert.deepEqual(await client.ask({ kind: 'dump' }), {
    kind: 'dump',
    light: { onOff: true, dimmer: 70 },
  });
  assert.deepEqual(await client.ask({ kind: 'leave' }), { kind: 'left', status: '2.02' });
  assert.equal(gateway.devices().length, 0);
});
