import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startAedes } from '../peers/brokers.ts';
import { Site, secrets } from './site.ts';

const limit = { timeout: 60_000 };
const party = (id: string) => ({
  id,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

test('LwM2M clients without security are allowed by name, and log and status say so', limit, async () => {
  await using site = new Site('mqtt://127.0.0.1:1');
  const lwm2m = { 'insecure-no-security': true, device: [{ id: 'urn:dev:plain:1' }] };
  const gateway = await site.gateway([], { coap: { port: 0 }, coaps: { port: 0 }, lwm2m }, false);
  const said = /LwM2M clients prove nothing/;
  assert.match(String((await site.gatewayEvents.until('lwm2m.insecure')).fields.security), said);
  assert.match(gateway.status().coap.security, said);
  assert.equal(site.gatewayEvents.count('coap.insecure'), 0);
});

test(
  'a parent over plain CoAP is allowed by name at both gateways, works, and log and status say so',
  limit,
  async () => {
    await using broker = await startAedes();
    await using top = new Site(broker.url);
    await using below = new Site(broker.url);
    const headend = await top.headend([], { gateway: [party('gw-1'), party('gw-2')] });
    const parent = await top.gateway(['gw-2']);
    await top.gatewayEvents.until('coap.insecure');
    assert.match(parent.status().coap.security, /^none: plain CoAP/);
    const tables = (more: object) => ({
      gateway: { id: 'gw-2', state: ':memory:' },
      mqtt: undefined,
      parent: {
        ...{
          id: 'gw-1',
          uri: `coap://127.0.0.1:${parent.coapPort}`,
          'factory-secret': secrets.factory('gw-2'),
        },
        ...more,
      },
    });
    await assert.rejects(below.gateway([], tables({}), false), /insecure-plain-coap = true/);
    const child = await below.gateway([], tables({ 'insecure-plain-coap': true }), false);
    await below.gatewayEvents.until('parent.insecure', { parent: 'gw-1' });
    assert.equal(child.status().uplink.protocol, 'CoAP without security');
    await top.headendEvents.until('alert.device-attach', { device: 'gw-2', gateway: 'gw-1' });
    // Package #0 for the child comes from the address of its parent.
    const [found] = await headend.manage('gw-2', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(found?.results[0]?.data, 'gw-2');
  },
);
