import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { connectAsync } from 'mqtt';
import { encodeState } from '../../src/wire/tunnel/gateway-state.ts';
import { Site } from '../journeys/site.ts';
import { withAccessRules } from '../peers/access-rules.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { asker, startApi } from './api-client.ts';

test('the API shows what the broker refuses, what a gateway says is wrong, and what was refused of it', {
  timeout: 60_000,
}, async () => {
  await using rules = withAccessRules(
    ...[
      'topic read dm/#',
      'user gw-1',
      'topic readwrite dm/gw-1/#',
      'user gw-2',
      'topic readwrite dm/gw-2/#',
    ],
  );
  await using broker = await startMosquitto([...rules.settings, 'set_tcp_nodelay true']);
  await using site = new Site(broker.url);
  const headend = await site.headend([], {
    headend: { id: 'dm.example', state: ':memory:', 'gateway-rate': 10 },
    mqtt: { url: broker.url, protocol: '5' },
  });
  await using api = await startApi(headend);
  // Compares each answer with the OpenAPI document.
  const ask = asker(api.url);
  const health = async () => (await ask('GET', '/healthz')).body;
  const gateways = async () => (await ask('GET', '/gateways')).body;

  await site.headendEvents.until('mqtt.refused');
  assert.deepEqual(await health(), {
    connected: true,
    problems: ['may not publish on dm/~/down: Not authorized (0x87)'],
  });

  const client = async (username: string) =>
    await connectAsync(broker.url, { protocolVersion: 5, username, clientId: username });
  const honest = await client('gw-1');
  // It has no account here, and tells no state.
  const loud = await client('gw-2');
  const problem = 'its state cannot be written: the disk is full';
  const state = encodeState({ online: true, software: '1', bootId: Buffer.alloc(8), problem });
  await honest.publishAsync('dm/gw-1/state', state, { qos: 1, retain: true });
  for (let at = 0; at < 200; at++) loud.publish('dm/gw-2/up', Buffer.from('x'), { qos: 0 });
  await site.headendEvents.until('gateway.problem', { gateway: 'gw-1' });
  await site.headendEvents.until('gateway.over-rate', { gateway: 'gw-2' });
  let shown = await gateways();
  while (Number(shown.find(({ id }) => id === 'gw-2')?.refused ?? 0) < 100) {
    await turn();
    shown = await gateways();
  }
  assert.deepEqual(
    shown.find(({ id }) => id === 'gw-1'),
    { id: 'gw-1', known: true, online: true, software: '1', problem },
  );
  const { refused: _, ...stranger } = shown.find(({ id }) => id === 'gw-2')!;
  assert.deepEqual(stranger, { id: 'gw-2', known: false });
  assert.equal(site.headendEvents.count('gateway.over-rate'), 1);
  await honest.endAsync();
  await loud.endAsync();
});
