// Before all that it stands in front of.
import '../faults/failing-storage.ts';

import assert from 'node:assert/strict';
import { copyFileSync, existsSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { GatewaySurroundings } from '../../src/gateway/composition.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { MediaType } from '../../src/wire/syncml/codec.ts';
import { ServiceProcess } from '../cli/service-process.ts';
import { unwatch, watch } from '../faults/failing-storage.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { SmallDisk } from '../peers/small-disk.ts';
import { StockClient } from '../peers/stock-client.ts';
import { freshState } from '../state-files.ts';
import { Site } from './site.ts';

const first = 'urn:dev:ops:1';
const second = 'urn:dev:ops:2';
const stock = 'urn:dev:ops:3';

/** Starts a site whose gateway has its state in a file, with one attached device. */
async function siteAt(url: string, state: string, more: object = {}) {
  const site = new Site(url);
  const headend = await site.headend([first, second]);
  const tables = { gateway: { id: 'gw-1', state }, limits: { 'keep-free': 1 }, ...more };
  const gateway = await site.gateway([first, second], tables);
  await site.device(first, gateway, { factory: true, server: true }).start();
  await site.headendEvents.until('alert.device-attach', { device: first });
  await site.gatewayEvents.until('alert.delivered');
  /** Starts the gateway again at the same port. */
  const again = async (stopped: Gateway, surroundings: Partial<GatewaySurroundings> = {}) => {
    const coap = { port: stopped.coapPort, leisure: 50, 'insecure-plain-coap': true };
    await stopped[Symbol.asyncDispose]();
    const connected = site.gatewayEvents.next('mqtt.connected');
    const started = await site.gateway([first, second], { ...tables, coap }, false, surroundings);
    await connected;
    return started;
  };
  return { site, headend, gateway, again };
}

/** What needs no write goes on: the tunnel, reads, discovery, and sessions that the gateway itself has with a device. */
async function assertServes(headend: Headend, gateway: Gateway): Promise<void> {
  const [throughTunnel] = await headend.manage(first, [{ name: 'Get', uri: './DevInfo/Man' }]);
  assert.equal(throughTunnel?.results[0]?.data, 'Maker & Sons');
  const [read] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwConfig/AttachAlert' }]);
  assert.equal(read?.results[0]?.data, 'true');
  await using peer = await CoapPeer.open();
  const discovery = { method: Code.GET, path: ['.well-known', 'core'] };
  assert.equal((await peer.call(gateway.coapPort, discovery)).name, '2.05');
}

/** What must be durable is refused with the right code, and changes nothing. */
async function assertRefuses(site: Site, headend: Headend, gateway: Gateway): Promise<void> {
  const [refused] = await headend.manage('gw-1', [
    { name: 'Replace', uri: './GwConfig/AttachAlert', format: 'bool', data: 'false' },
  ]);
  assert.equal(refused?.status, 420);
  const image = { name: 'settings', version: '1', data: Buffer.from('x') };
  await assert.rejects(headend.stageImage('gw-1', image), { dmStatus: 420 });
  await site.device(second, gateway, { factory: true }).start();
  const { fields } = await site.deviceEvents.until('device.attach-failed', { device: second });
  assert.match(String(fields.reason), /5\.03/);
}

const probe = SmallDisk.mount(1);
const noDisk = probe ? false : 'file systems cannot be mounted here';
probe?.[Symbol.dispose]();
const fragile = SmallDisk.mountFragile(8);
const noFragile = fragile ? false : 'no file system can be mounted here in which an error can be made';
fragile?.[Symbol.dispose]();

describe('a gateway on a read-only or failing disk', { timeout: 120_000 }, () => {
  test('runs on when the kernel finds an error and makes the disk read-only, starts on that disk, and goes on when it is mounted again', {
    skip: noFragile,
  }, async () => {
    using disk = SmallDisk.mountFragile(16)!;
    await using broker = await startAedes();
    const { site, headend, gateway, again } = await siteAt(broker.url, join(disk.folder, 'state.db'));
    await using _ = site;
    // The last session of the gateway has made all durable.
    await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    disk.fail();
    await assertServes(headend, gateway);
    // Its nonces stay in memory. A write that the disk refused leaves nothing to wait for.
    const [own] = await gateway.manage(first, [{ name: 'Get', uri: './DevInfo/DevId' }], 10_000);
    assert.equal(own?.results[0]?.data, first);
    await assertRefuses(site, headend, gateway);
    await assertServes(headend, gateway);
    const devices = gateway.devices().map(({ deviceId }) => deviceId);
    assert.equal(site.gatewayEvents.count('state.failing'), 1, 'it is said once, not for each request');
    assert.ok(gateway.status().fault);

    const outdated = Promise.withResolvers<void>();
    const started = await again(gateway, { startAgain: outdated.resolve });
    assert.equal(started.status().fault, 'the disk of the state is read-only');
    assert.deepEqual(
      started.devices().map(({ deviceId }) => deviceId),
      devices,
    );
    await assertServes(headend, started);
    await assert.rejects(
      headend.stageImage('gw-1', { name: 'settings', version: '1', data: Buffer.from('x') }),
      { dmStatus: 420 },
    );
    const writable = site.gatewayEvents.next('state.writable');
    disk.mountAgain();
    // What the disk had not taken before its error is gone: then a new start reads what it holds.
    await Promise.race([writable, outdated.promise]);
    const last = started.status().fault === undefined ? started : await again(started);
    assert.equal(last.status().fault, undefined);
    assert.deepEqual(
      last.devices().map(({ deviceId }) => deviceId),
      devices,
    );
    await site.headendEvents.until('alert.device-attach', { device: second });
  });

  test('starts on a disk that is read-only, serves its images and devices, and writes when it can', {
    skip: noDisk,
  }, async () => {
    using disk = SmallDisk.mount(16)!;
    await using broker = await startAedes();
    const { site, headend, gateway, again } = await siteAt(broker.url, join(disk.folder, 'state.db'));
    await using _ = site;
    await headend.stageImage('gw-1', { name: 'fw', version: '2', data: Buffer.alloc(30_000, 'x') });
    // The last session of the gateway has stored what it changed.
    await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    const { images } = gateway.status();
    await gateway[Symbol.asyncDispose]();
    disk.setReadOnly(true);
    const started = await again(gateway);
    assert.equal(site.gatewayEvents.count('state.failing'), 1);
    assert.deepEqual(started.status().images, images);
    await assertServes(headend, started);
    const [own] = await started.manage(first, [{ name: 'Get', uri: './DevInfo/DevId' }], 10_000);
    assert.equal(own?.results[0]?.data, first);
    await assertRefuses(site, headend, started);
    assert.equal(site.gatewayEvents.count('state.failing'), 1, 'it is said once, not for each request');
    disk.setReadOnly(false);
    await site.gatewayEvents.until('state.writable');
    await site.headendEvents.until('alert.device-attach', { device: second });
    const told = site.headendEvents.all.filter(({ name }) => name === 'alert.device-attach');
    assert.equal(told.length, 2, 'each device was told once');
    const [written] = await headend.manage('gw-1', [
      { name: 'Replace', uri: './GwConfig/AttachAlert', format: 'bool', data: 'false' },
    ]);
    assert.equal(written?.status, 200);
  });

  test('with a DM server and a device that start on read-only disks too: what they have is shown, and they work when the disks take writes', {
    skip: noDisk,
  }, async () => {
    using disk = SmallDisk.mount(16)!;
    await using broker = await startAedes();
    const folder = (name: string) => join(disk.folder, `${name}.db`);
    const kind = { factory: true, server: true, more: { state: folder('device') } };
    const server = { headend: { id: 'dm.example', state: folder('headend'), 'session-timeout': 20 } };
    {
      await using site = new Site(broker.url);
      await site.headend([first], server);
      const gateway = await site.gateway([first], { gateway: { id: 'gw-1', state: folder('gateway') } });
      await site.device(first, gateway, kind).start();
      await site.headendEvents.until('alert.device-attach', { device: first });
      await site.gatewayEvents.until('alert.delivered');
    }
    disk.setReadOnly(true);
    await using site = new Site(broker.url);
    const headend = await site.headend([first], server);
    const gateway = await site.gateway([first], { gateway: { id: 'gw-1', state: folder('gateway') } });
    const device = site.device(first, gateway, kind);
    await device.start();
    assert.deepEqual(
      headend.devices().map(({ id, attached }) => [id, attached]),
      [[first, true]],
    );
    assert.deepEqual([...device.servers].sort(), ['dm.example', 'gw-1']);
    // Each session of a DM server changes nonces that it must keep.
    await site.headendEvents.until('package.refused', { status: 420 });
    for (const events of [site.headendEvents, site.gatewayEvents, site.deviceEvents])
      assert.equal(events.count('state.failing'), 1);
    disk.setReadOnly(false);
    for (const events of [site.headendEvents, site.gatewayEvents, site.deviceEvents])
      await events.until('state.writable');
    const [read] = await headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(read?.results[0]?.data, 'gw-1');
    const [own] = await headend.manage(first, [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(own?.results[0]?.data, first);
  });

  test('whose state is another one when the disk takes writes again starts again within its process', {
    skip: noDisk,
  }, async () => {
    using disk = SmallDisk.mount(16)!;
    const state = join(disk.folder, 'state.db');
    const config = join(disk.folder, 'gateway.toml');
    const file = `[gateway]
id = "gw-1"
state = "${state}"
admin-socket = "${disk.folder}.sock"
[coap]
port = 0
interfaces = ["lo"]
insecure-plain-coap = true
[mqtt]
url = "mqtt://127.0.0.1:1"
[dm-server]
id = "dm.example"
client-secret = "gateway-client-secret"
server-secret = "gateway-server-secret"
`;
    writeFileSync(config, file);
    {
      await using first = ServiceProcess.postern(['gateway', '--config', config]);
      await first.until('gateway.started');
    }
    disk.setReadOnly(true);
    await using gateway = ServiceProcess.postern(['gateway', '--config', config]);
    await gateway.until('state.failing', { reason: 'the disk of the state is read-only' });
    await gateway.until('gateway.started');
    disk.setReadOnly(false);
    copyFileSync(state, `${state}.repaired`);
    renameSync(`${state}.repaired`, state);
    const { length } = gateway.lines;
    await gateway.until('gateway.stopping', {}, length);
    await gateway.until('gateway.started', {}, length);
    assert.equal(gateway.child.exitCode, null);
    assert.ok(existsSync(`${state}-wal`), 'the file itself is open');
  });

  test('whose syncs fail while its writes do not: nothing is promised, and nothing else stops', async (t) => {
    const state = freshState(t);
    await using broker = await startAedes();
    const account = { 'client-secret': 'pw', 'server-secret': 'spw', 'client-auth': ['basic'] };
    const http = { port: 0, device: [{ id: stock, ...account }] };
    const { site, headend, gateway } = await siteAt(broker.url, state, { http });
    await using _ = site;
    await using client = new StockClient({
      ...{ deviceId: stock, serverId: 'gw-1', user: stock, password: 'pw', serverPassword: 'spw' },
      ...{ auth: 'basic', mediaType: MediaType.Xml, url: `${gateway.httpUrl}/dm` },
    });
    const watched = watch(state);
    t.after(() => unwatch(state));
    watched.refuses = /^fdatasync$/;
    // This write is made and cannot be made durable, so it is not acknowledged.
    await site.device(second, gateway, { factory: true }).start();
    const { fields } = await site.deviceEvents.until('device.attach-failed', { device: second });
    assert.match(String(fields.reason), /5\.03/);
    await site.gatewayEvents.until('state.failing');
    for (let round = 0; round < 3; round++) await assertServes(headend, gateway);
    assert.deepEqual([await client.session(), client.retryAfter], [503, '30'], 'over HTTP');
    const [refused] = await headend.manage('gw-1', [
      { name: 'Replace', uri: './GwConfig/AttachAlert', format: 'bool', data: 'false' },
    ]);
    assert.equal(refused?.status, 420);
    assert.equal(site.headendEvents.count('alert.device-attach'), 1, 'no alert leaves that may be forgotten');
    assert.equal(site.gatewayEvents.count('state.failing'), 1, 'it is said once, not for each request');
    assert.equal(site.gatewayEvents.count('state.writable'), 0);
    watched.refuses = undefined;
    await site.headendEvents.until('alert.device-attach', { device: second });
    await site.gatewayEvents.until('state.writable');
    assert.equal(gateway.status().fault, undefined);
    assert.equal(await client.session(), 200);
  });
});
