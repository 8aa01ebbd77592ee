import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { startAedes, startMosquitto } from '../peers/brokers.ts';
import { Site, secrets } from './site.ts';

const id = 'urn:dev:ops:1';

for (const [name, startBroker, mqtt] of [
  ['aedes, MQTT 3.1.1', startAedes, '3.1.1'],
  ['mosquitto, MQTT 5', startMosquitto, '5'],
] as const)
  describe(`over ${name}`, { timeout: 60_000 }, () => {
    // conforms: PRO-19, SEC-11, GW-1, GW-4, GW-5, GW-15
    test('journey 1: a device without an account is bootstrapped locally, attached and reported', async () => {
      await using broker = await startBroker();
      await using site = new Site(broker.url);
      const headend = await site.headend([]);
      const gateway = await site.gateway([id]);
      assert.equal(gateway.status().uplink.protocol, `MQTT ${mqtt}`);
      const device = site.device(id, gateway, { factory: true, multicast: true });
      await device.start();
      await device.attached;
      await site.gatewayEvents.until('alert.delivered', { device: id });
      const alert = await site.headendEvents.until('alert.device-attach', { device: id });
      assert.equal(alert.fields.bootstrap, 'local');
      assert.equal(alert.fields.manufacturer, 'Maker & Sons');
      const [record] = gateway.devices();
      assert.deepEqual(
        [record?.deviceId, record?.state, record?.origin, record?.firmware],
        [id, 'attached', 'local', '1.0.0'],
      );
      assert.equal(gateway.status().outbox.waiting, 0);
      assert.deepEqual(headend.devices(), [{ id, known: false, gateway: 'gw-1', attached: true }]);
    });

    // conforms: OBJ-4, GW-1, GW-2
    test('journey 2: the DM server bootstraps a device to the gateway in its first session', async () => {
      await using broker = await startBroker();
      await using site = new Site(broker.url);
      await site.headend([id]);
      const gateway = await site.gateway([]);
      const device = site.device(id, gateway, { server: true });
      await device.start();
      await device.attached;
      assert.deepEqual(device.servers.toSorted(), ['dm.example', 'gw-1']);
      await site.gatewayEvents.until('alert.delivered', { device: id });
      assert.equal((await site.headendEvents.until('alert.device-attach')).fields.bootstrap, 'server');
      assert.equal(gateway.devices()[0]?.origin, 'server');
    });

    // conforms: NOT-4, GW-9
    test('journey 3: the DM server manages a device through the tunnel of the gateway', async () => {
      await using broker = await startBroker();
      await using site = new Site(broker.url);
      const headend = await site.headend([id]);
      const gateway = await site.gateway([]);
      const device = site.device(id, gateway, { server: true });
      await device.start();
      await device.attached;
      for (const label of ['pump house', 'boiler room']) {
        const outcomes = await headend.manage(id, [
          { name: 'Get', uri: './DevInfo/Man' },
          { name: 'Replace', uri: './Settings/Label', data: label },
          { name: 'Replace', uri: './DevInfo/Man', data: 'x' },
        ]);
        assert.deepEqual(
          outcomes.map(({ status }) => status),
          [200, 200, 405],
        );
        assert.equal(outcomes[0]?.results[0]?.data, 'Maker & Sons');
        assert.equal(device.value('Settings', 'Label'), label);
      }
      assert.equal(site.deviceEvents.count('device.notified'), 2);
    });
  });

const schemes = { 'client-auth': ['mac'], 'server-auth': ['mac'] };
const party = (name: string, client: string, server: string) => ({
  id: name,
  'client-secret': client,
  'server-secret': server,
  ...schemes,
});

// conforms: SEC-3, PRO-12, GW-15
test('sessions with MACs in WBXML, with a value that needs several messages', {
  timeout: 60_000,
}, async () => {
  await using broker = await startMosquitto();
  await using site = new Site(broker.url);
  const headend = await site.headend([], {
    gateway: [party('gw-1', secrets.gatewayClient, secrets.gatewayServer)],
    device: [party(id, secrets.deviceClient(id), secrets.deviceServer(id))],
  });
  const ofServer = party('dm.example', secrets.gatewayClient, secrets.gatewayServer);
  const gateway = await site.gateway([], { 'dm-server': { ...ofServer, encoding: 'wbxml' } });
  const device = site.device(id, gateway, {
    more: { encoding: 'wbxml' },
    top: { 'dm-server': party('dm.example', secrets.deviceClient(id), secrets.deviceServer(id)) },
  });
  await device.start();
  await device.attached;
  await site.headendEvents.until('alert.device-attach', { device: id });
  const label = '<north & south> '.repeat(4000);
  const outcomes = await headend.manage(id, [
    { name: 'Replace', uri: './Settings/Label', data: label },
    { name: 'Get', uri: './Settings/Label' },
  ]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    [200, 200],
  );
  assert.equal(device.value('Settings', 'Label'), label);
  assert.equal(outcomes[1]?.results[0]?.data, label);
  const [name] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
  assert.equal(name?.results[0]?.data, 'gw-1');
});
