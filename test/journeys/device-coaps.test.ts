import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { Device } from '../../src/device/device.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { startAedes } from '../peers/brokers.ts';
import { type DeviceKind, loopback, Site, secrets } from './site.ts';

const id = 'urn:dev:ops:1';
const other = 'urn:dev:ops:2';
const limit = { timeout: 120_000 };

/** What a gateway has that serves devices over DTLS, and nothing more over plain CoAP than a device needs to find it. */
const secure = { coap: { port: 0, leisure: 50 } };

const folderOf = (t: TestContext): string => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-device-coaps-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
};

/** The two ways to an account: by a factory secret (8.4.2), and by the DM server (8.4.1). */
const ways: readonly (readonly [string, DeviceKind])[] = [
  ['local', { factory: true, multicast: true }],
  ['server', { server: true, multicast: true }],
];

async function attached(device: Device): Promise<Device> {
  await device.start();
  await device.attached;
  return device;
}

const address = (gateway: Gateway) => `coaps://127.0.0.1:${gateway.coapsPort}`;

for (const [origin, kind] of ways)
  describe(`a blank device and a gateway over DTLS, bootstrap: ${origin}`, limit, () => {
    const factoryIds = kind.factory ? [id, other] : [];

    test('discovery, bootstrap, attach, a session by Package #0 through the association', async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([id]);
      const gateway = await site.gateway(factoryIds, secure);
      const device = await attached(site.device(id, gateway, { ...kind, server: true }));
      const alert = await site.headendEvents.until('alert.device-attach', { device: id });
      assert.equal(alert.fields.bootstrap, kind.factory ? 'server' : origin);
      const opened = await site.gatewayEvents.until('dtls.opened', { device: id });
      assert.match(String(opened.fields.identity), /^gw:/);
      await site.deviceEvents.until('device.discovered', { gateway: address(gateway) });
      const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 20_000);
      assert.equal(outcome?.results[0]?.data, 'Maker & Sons');
      const outcomes = await headend.manage(id, [{ name: 'Replace', uri: './Settings/Label', data: 'pump' }]);
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        [200],
      );
      assert.equal(device.value('Settings', 'Label'), 'pump');
      await device.detach();
      await site.gatewayEvents.until('dtls.closed', { device: id });
      await site.headendEvents.until('alert.device-detach', { device: id });
    });
  });

void [loopback, secrets, folderOf];
