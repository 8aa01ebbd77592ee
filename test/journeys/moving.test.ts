import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { Gateway } from '../../src/gateway/gateway.ts';
import type { Broker } from '../peers/brokers.ts';
import { startAedes } from '../peers/brokers.ts';
import { Site, secrets } from './site.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 60_000 };
const folder = mkdtempSync(join(tmpdir(), 'postern-moving-'));
after(() => rmSync(folder, { recursive: true }));
let files = 0;
const fresh = () => join(folder, `${++files}.db`);

const party = (name: string) => ({
  id: name,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

/** Starts a DM server with two gateways. Each gateway has a `Site` of its own, so that their events are separate. */
async function twoSites(broker: Broker, first: Site, second: Site, state = ':memory:') {
  const headend = await first.headend([id], { gateway: [party('gw-1'), party('gw-2')] });
  const old = await first.gateway([], { gateway: { id: 'gw-1', state } });
  const other = await second.gateway([], { gateway: { id: 'gw-2', state: ':memory:' } });
  return { headend, old, other, broker };
}

const attach = async (site: Site, gateway: Gateway, state: string) => {
  const device = site.device(id, gateway, { server: true, more: { state } });
  await device.start();
  await device.attached;
  return device;
};

describe('journey 7: a device that moved to another private network', limit, () => {
  // conforms: GW-3, GW-7, GW-8
  test('a moved device reports its location, is bootstrapped to the new gateway, and is detached from the old one', async () => {
    await using broker = await startAedes();
    await using first = new Site(broker.url);
    await using second = new Site(broker.url);
    const { headend, old, other } = await twoSites(broker, first, second);
    const state = fresh();
    {
      await using device = await attach(first, old, state);
      await first.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-1' });
      assert.deepEqual(device.servers.toSorted(), ['dm.example', 'gw-1']);
    }
    const device = await attach(second, other, state);
    const moved = await first.headendEvents.until('alert.location-update', { device: id });
    assert.deepEqual([moved.fields.gateway, moved.fields.before], ['gw-2', 'gw-1']);
    const given = await first.headendEvents.until('bootstrap.assisted', { device: id, gateway: 'gw-2' });
    assert.deepEqual([given.fields.status, given.fields.instead], [200, 'gw-1']);
    assert.deepEqual(
      device.servers.toSorted(),
      ['dm.example', 'gw-2'],
      'the new account has replaced the old one',
    );
    await first.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-2' });
    await first.gatewayEvents.until('device.detached', { device: id, reason: 'removed' });
    const letGo = await first.headendEvents.until('device.let-go', { device: id, gateway: 'gw-1' });
    assert.equal(letGo.fields.status, 200);
    assert.deepEqual([old.devices(), other.devices().length], [[], 1]);
    assert.deepEqual(
      headend.devices().map(({ gateway, attached }) => [gateway, attached]),
      [['gw-2', true]],
    );
    assert.equal(old.status().outbox.waiting, 0, 'no alert, since the DM server itself detached the device');
    await assert.rejects(
      old.manage(id, [], 100),
      { code: 'notFound' },
      'the old gateway has no credentials for it any more',
    );
  });

  // conforms: GW-8
  test('a moved device is detached from an old gateway that was offline, when that gateway returns', async () => {
    await using broker = await startAedes();
    await using first = new Site(broker.url);
    await using second = new Site(broker.url);
    const gatewayState = fresh();
    const { old, other } = await twoSites(broker, first, second, gatewayState);
    const state = fresh();
    {
      await using _ = await attach(first, old, state);
      await first.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-1' });
    }
    await old[Symbol.asyncDispose]();
    await first.headendEvents.until('gateway.state', { gateway: 'gw-1', online: false });
    await attach(second, other, state);
    await first.headendEvents.until('device.moved', { device: id, from: 'gw-1' });
    await using third = new Site(broker.url);
    const back = await third.gateway([], { gateway: { id: 'gw-1', state: gatewayState } });
    assert.equal(back.devices().length, 1, 'the old gateway does not know yet');
    await first.headendEvents.until('device.let-go', { device: id, gateway: 'gw-1' });
    assert.deepEqual(back.devices(), []);
  });

  // conforms: GW-7
  test('a moved device does not report its location if its settings switch the alert off', async () => {
    await using broker = await startAedes();
    await using first = new Site(broker.url);
    await using second = new Site(broker.url);
    const { headend, old, other } = await twoSites(broker, first, second);
    const state = fresh();
    {
      await using _ = await attach(first, old, state);
      await first.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-1' });
      const outcomes = await headend.manage(id, [
        { name: 'Replace', uri: './Settings/LocationUpdate', format: 'bool', data: 'false' },
      ]);
      assert.equal(outcomes[0]?.status, 200);
    }
    await attach(second, other, state);
    await first.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-2' });
    assert.equal(first.headendEvents.count('alert.location-update'), 0);
  });

  test('a moved device without a DM server is bootstrapped locally by the new gateway, and detached from the old one', async () => {
    await using broker = await startAedes();
    await using first = new Site(broker.url);
    await using second = new Site(broker.url);
    await first.headend([], { gateway: [party('gw-1'), party('gw-2')] });
    const old = await first.gateway([id]);
    const other = await second.gateway([id], { gateway: { id: 'gw-2', state: ':memory:' } });
    const state = fresh();
    for (const [site, gateway, name] of [
      [first, old, 'gw-1'],
      [second, other, 'gw-2'],
    ] as const) {
      await using device = site.device(id, gateway, { factory: true, more: { state } });
      await device.start();
      await device.attached;
      await first.headendEvents.until('alert.device-attach', { device: id, gateway: name });
    }
    await first.headendEvents.until('device.let-go', { device: id, gateway: 'gw-1' });
    assert.deepEqual([old.devices().length, other.devices().length], [0, 1]);
  });
});

describe('detaching a device', limit, () => {
  // conforms: GW-6
  test('if a device detaches itself, the gateway deletes its record and reports this to the DM server', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway([id]);
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: id });
    await device.detach();
    await site.gatewayEvents.until('device.detached', { device: id, reason: 'left' });
    const alert = await site.headendEvents.until('alert.device-detach', { device: id });
    assert.equal(alert.fields.reason, 'left');
    assert.deepEqual([gateway.devices(), headend.devices(), device.servers], [[], [], []]);
    await assert.rejects(device.detach(), { code: 'notFound' });
  });

  // conforms: GW-14
  test('a Delete by the DM server detaches a device, but not in an Atomic that fails', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway([id]);
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    await device.attached;
    await site.gatewayEvents.until('alert.delivered', { device: id });
    assert.deepEqual(
      headend.devices().map(({ attached }) => attached),
      [true],
    );
    const [list] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwDeviceInventory/Records' }]);
    const remove = { name: 'Delete', uri: `./GwDeviceInventory/Records/${list?.results[0]?.data}` } as const;
    const fails = { name: 'Replace', uri: './GwConfig/MaxEndDevices', data: '1' } as const;
    const [undone] = await headend.manage('gw-1', [{ name: 'Atomic', operations: [remove, fails] }]);
    assert.deepEqual([undone?.status, undone?.parts?.map(({ status }) => status)], [507, [216, 405]]);
    assert.equal(gateway.devices().length, 1, 'its record is restored');
    assert.equal(headend.devices().length, 1, 'and the DM server knows it');
    const outcomes = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Mod' }], 20_000);
    assert.equal(outcomes[0]?.status, 200, 'and so are its credentials');
    const [done] = await headend.manage('gw-1', [remove]);
    assert.deepEqual([done?.status, gateway.devices()], [200, []]);
    assert.deepEqual(headend.devices(), [], 'the gateway sends no alert of it, and the DM server knows it');
  });
});
