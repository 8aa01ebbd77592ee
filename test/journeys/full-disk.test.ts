import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { PlatformSealing } from '../../src/base/sealing.ts';
import { Credentials } from '../../src/gateway/store/credentials.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { SmallDisk } from '../peers/small-disk.ts';
import { releasedState } from '../state-files.ts';
import { childTables, Site, secrets } from './site.ts';

const probe = SmallDisk.mount(1);
const skip = probe ? false : 'file systems cannot be mounted here';
probe?.[Symbol.dispose]();

const first = 'urn:dev:ops:1';
const second = 'urn:dev:ops:2';

describe('a gateway on a full disk', { skip, timeout: 120_000 }, () => {
  test('runs on: the tunnel works, reads work, what must be durable is refused, and it recovers by itself', async () => {
    using disk = SmallDisk.mount(4)!;
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([first, second]);
    const gateway = await site.gateway([first, second], {
      gateway: { id: 'gw-1', state: join(disk.folder, 'state.db') },
    });
    const device = site.device(first, gateway, { factory: true, server: true });
    await device.start();
    await site.headendEvents.until('alert.device-attach', { device: first });

    disk.fill();
    const newcomer = site.device(second, gateway, { factory: true });
    await newcomer.start();
    const { fields } = await site.deviceEvents.until('device.attach-failed', { device: second });
    assert.match(String(fields.reason), /5\.03|cannot be written/);
    await site.gatewayEvents.until('state.failing');
    assert.match(gateway.status().fault ?? '', /full/);
    const told = await site.headendEvents.until('gateway.problem', { gateway: 'gw-1' });
    assert.match(String(told.fields.reason), /^the state cannot be written: .*full/);
    assert.equal(headend.gateways()[0]?.problem, told.fields.reason);

    const [throughTunnel] = await headend.manage(first, [{ name: 'Get', uri: './DevInfo/Man' }]);
    assert.equal(throughTunnel?.results[0]?.data, 'Maker & Sons');
    const [read, written] = await headend.manage('gw-1', [
      { name: 'Get', uri: './GwConfig/MaxEndDevices' },
      { name: 'Get', uri: './DevInfo/Man' },
    ]);
    assert.deepEqual([read?.status, written?.status], [200, 200]);
    const [refusedWrite] = await headend.manage('gw-1', [
      { name: 'Replace', uri: './GwConfig/AttachAlert', format: 'bool', data: 'false' },
      { name: 'Get', uri: './GwConfig/AttachAlert' },
    ]);
    assert.equal(refusedWrite?.status, 420, 'the disk refuses when all is stored');
    assert.deepEqual(
      site.gatewayEvents.all
        .filter(({ name, fields }) => name === 'dm.command' && fields.uri === './GwConfig/AttachAlert')
        .map(({ fields: { command, status } }) => [command, status]),
      [
        ['Replace', 420],
        ['Get', 200],
      ],
      'the log says what the server was told',
    );
    const [unchanged] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwConfig/AttachAlert' }]);
    assert.equal(unchanged?.results[0]?.data, 'true');
    const image = { name: 'settings', version: '1', data: Buffer.from('x') };
    await assert.rejects(headend.stageImage('gw-1', image), { dmStatus: 420 });

    await using peer = await CoapPeer.open();
    const refused = await peer.call(gateway.coapPort, {
      method: Code.GET,
      path: ['.well-known', 'core'],
    });
    assert.equal(refused.name, '2.05', 'discovery needs no disk');
    assert.equal(site.gatewayEvents.count('state.failing'), 1, 'it is said once, not for each request');

    disk.clear();
    await site.headendEvents.until('alert.device-attach', { device: second });
    await site.gatewayEvents.until('state.writable');
    assert.equal(gateway.status().fault, undefined);
    while (headend.gateways()[0]?.problem !== undefined) await site.headendEvents.next('gateway.state');
    assert.equal(site.headendEvents.count('gateway.problem'), 1);
  });

  test('a child gateway on a full disk tells its parent, and the head-end shows it until there is room', async () => {
    using disk = SmallDisk.mount(4)!;
    await using broker = await startAedes();
    await using top = new Site(broker.url);
    await using bottom = new Site(broker.url);
    const headend = await top.headend([]);
    const coap = { port: 0, leisure: 50 };
    const parent = await top.gateway(['gw-2'], { coap }, true);
    const child = await bottom.gateway(
      [first],
      {
        gateway: { id: 'gw-2', state: join(disk.folder, 'state.db') },
        coap,
        ...childTables('gw-2', parent),
      },
      false,
    );
    await top.headendEvents.until('alert.device-attach', { device: 'gw-2' });
    const shown = () => headend.gateways().find(({ id }) => id === 'gw-2');
    assert.equal(shown()?.problem, undefined);

    disk.fill();
    await bottom.device(first, child, { factory: true }).start();
    await bottom.gatewayEvents.until('state.failing');
    const { fields } = await top.headendEvents.until('gateway.problem', { gateway: 'gw-2' });
    assert.match(String(fields.reason), /^the state cannot be written: .*full/);
    assert.deepEqual([shown()?.problem, shown()?.known], [fields.reason, false]);

    disk.clear();
    await top.headendEvents.until('alert.gateway-fault', { gateway: 'gw-2', kind: 'problem-ended' });
    assert.equal(shown()?.problem, undefined);
    assert.equal(top.headendEvents.count('gateway.problem'), 1);
  });

  test('starts on a full disk, serves what needs no write, and writes again when there is room', async () => {
    using disk = SmallDisk.mount(4)!;
    await using broker = await startAedes();
    const state = { gateway: { id: 'gw-1', state: join(disk.folder, 'state.db') } };
    {
      await using site = new Site(broker.url);
      await site.headend([first]);
      const gateway = await site.gateway([first], state);
      await site.device(first, gateway, { factory: true }).start();
      await site.headendEvents.until('alert.device-attach', { device: first });
      await site.gatewayEvents.until('alert.delivered');
    }
    disk.fill();
    await using site = new Site(broker.url);
    const headend = await site.headend([first]);
    const gateway = await site.gateway([first, second], state);
    assert.deepEqual(
      gateway.devices().map(({ deviceId }) => deviceId),
      [first],
    );
    const [read] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(read?.results[0]?.data, 'gw-1');
    disk.clear();
    await site.device(second, gateway, { factory: true }).start();
    await site.headendEvents.until('alert.device-attach', { device: second });
  });

  test('of version 0.1.0 is migrated when there is room: until then gateway, DM server and device show what they have', async (t) => {
    using disk = SmallDisk.mount(4)!;
    await using broker = await startAedes();
    const file = (name: 'gateway' | 'headend' | 'device') => join(disk.folder, `${name}.db`);
    for (const name of ['gateway', 'headend', 'device'] as const)
      copyFileSync(releasedState(t, name), file(name));
    disk.fill();
    await using otherSite = new Site(broker.url);
    await otherSite.headend([], { headend: { id: 'other.example', state: ':memory:' } });
    await using site = new Site(broker.url);
    const headend = await site.headend([], {
      headend: { id: 'dm.example', state: file('headend'), 'session-timeout': 20 },
    });
    const gateway = await site.gateway([], {
      gateway: { id: 'gw-1', state: file('gateway') },
      lwm2m: { device: [{ id: 'urn:dev:lwm2m:1' }], 'insecure-no-security': true },
    });
    assert.match(gateway.status().fault ?? '', /^the state cannot be migrated until 1 MB are free/);
    assert.equal(gateway.devices().length, 7);
    assert.ok(headend.devices().length > 0);
    const device = site.device(first, gateway, { more: { state: file('device') } });
    await device.start();
    await using peer = await CoapPeer.open();
    const discovery = { method: Code.GET, path: ['.well-known', 'core'] };
    assert.equal((await peer.call(gateway.coapPort, discovery)).name, '2.05');
    const all = [site.gatewayEvents, site.headendEvents, site.deviceEvents];
    for (const events of all) assert.equal(events.count('state.failing'), 1, 'it is said once');
    disk.clear();
    for (const events of all) await events.until('state.writable');
    await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    // Alerts that waited in the file of 0.1.0.
    await site.headendEvents.until('alert.device-detach', { device: 'urn:dev:ops:3', reason: 'left' });
    await site.headendEvents.until('alert.device-attach', { device: 'urn:dev:ops:5', gateway: 'gw-1' });
    assert.equal(gateway.status().fault, undefined);
  });

  test('starts on a full disk with another configuration than before, which holds; what must be stored is stored later', async () => {
    using disk = SmallDisk.mount(4)!;
    await using broker = await startAedes();
    const gateway = { id: 'gw-1', state: join(disk.folder, 'state.db') };
    const secret = 'a secret that the DM server does not know';
    const server = {
      id: 'dm.example',
      'client-secret': secrets.gatewayClient,
      'server-secret': secrets.gatewayServer,
    };
    {
      await using site = new Site(broker.url);
      await site.gateway([], { gateway, 'dm-server': { ...server, 'client-secret': secret } });
    }
    disk.fill();
    const account = { id: second, 'client-secret': 'of the device', 'server-secret': 'of the gateway' };
    const http = { port: 0, 'insecure-plain-http': true, device: [account] };
    const changed = { gateway, http, 'dm-server': server, limits: { devices: 77 }, budget: { day: 5000 } };
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    await site.gateway([], changed);
    const values = async () => {
      const uris = ['./GwConfig/MaxEndDevices', './GwConfig/DataPerDay'];
      const found = await headend.manage(
        'gw-1',
        uris.map((uri) => ({ name: 'Get', uri }) as const),
      );
      return found.map(({ results }) => results[0]?.data);
    };
    assert.deepEqual(await values(), ['77', '5000'], 'the DM server believes it by its new secret');
    assert.ok(site.gatewayEvents.count('state.failing') > 0);
    const known = async () => await headend.manage('gw-1', [{ name: 'Get', uri: './DMAcc' }]);
    disk.clear();
    while (site.gatewayEvents.count('state.writable') === 0) await known();
    await site[Symbol.asyncDispose]();
    const file = openDatabase(gateway.state, gatewaySchema);
    const kept = new Credentials(
      file,
      10,
      new PlatformSealing({ file: `${gateway.state}.key` }, systemEntropy, assert.fail),
    );
    assert.equal(kept.get(second)?.clientSecret, 'of the device');
    await file.close();
  });

  test('starts without its key where another one cannot be written, and has an account for its DM server', async () => {
    using disk = SmallDisk.mount(4)!;
    await using broker = await startAedes();
    const gateway = { id: 'gw-1', state: join(disk.folder, 'state.db') };
    {
      await using site = new Site(broker.url);
      await site.gateway([], { gateway });
    }
    for (const prevent of [() => disk.fill(), () => mkdirSync(`${gateway.state}.key`)]) {
      rmSync(`${gateway.state}.key`, { force: true });
      prevent();
      await using site = new Site(broker.url);
      const headend = await site.headend([first]);
      const running = await site.gateway([first], { gateway });
      await site.gatewayEvents.until('state.sealed-lost');
      const [read] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
      assert.equal(read?.results[0]?.data, 'gw-1');
      disk.clear();
      await site.device(first, running, { factory: true }).start();
      if (prevent.toString().includes('fill')) {
        await site.headendEvents.until('alert.device-attach', { device: first });
        continue;
      }
      // A key that is unusable is not a disk that takes no writes.
      await site.deviceEvents.until('device.attach-failed', { device: first });
      await headend.manage('gw-1', [
        { name: 'Replace', uri: './GwConfig/AttachAlert', format: 'bool', data: 'false' },
      ]);
      assert.equal(site.gatewayEvents.count('state.failing') + site.gatewayEvents.count('state.writable'), 0);
      assert.equal(site.gatewayEvents.count('state.key-unusable'), 1);
    }
  });
});
