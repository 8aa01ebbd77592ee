import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startAedes } from '../peers/brokers.ts';
import { Site, secrets } from './site.ts';

const id = 'urn:dev:ops:1';

// conforms: SEC-1
test('gateway and device with passwords (basic) are managed without TLS: the DM server proves itself first', {
  timeout: 60_000,
}, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const auth = { 'client-auth': ['basic'] };
  const gateways = {
    id: 'gw-1',
    'client-secret': secrets.gatewayClient,
    'server-secret': secrets.gatewayServer,
  };
  const devices = {
    id,
    'client-secret': secrets.deviceClient(id),
    'server-secret': secrets.deviceServer(id),
  };
  const headend = await site.headend([], {
    gateway: [{ ...gateways, ...auth }],
    device: [{ ...devices, ...auth }],
    policy: { 'assisted-bootstrap': false },
  });
  const gateway = await site.gateway([], { 'dm-server': { ...gateways, id: 'dm.example', ...auth } });
  const device = site.device(id, gateway, {
    top: { 'dm-server': { ...devices, id: 'dm.example', ...auth } },
  });
  await device.start();
  await site.headendEvents.until('session.ended', { device: id, status: 200 });
  for (const party of ['gw-1', id]) {
    const [found] = await headend.manage(party, [{ name: 'Get', uri: './DevInfo/Man' }]);
    assert.equal(found?.status, 200, party);
  }
});
