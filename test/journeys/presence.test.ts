import assert from 'node:assert/strict';
import { execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { stringify } from 'smol-toml';
import { noEvents } from '../../src/base/events.ts';
import { hashedName } from '../../src/base/hashed-name.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { AdminApi, askGateway } from '../../src/gateway/console/admin-api.ts';
import { Credentials } from '../../src/gateway/store/credentials.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { Nat } from '../peers/nat.ts';
import { sealingOf } from '../state-files.ts';
import { childTables, Site, secrets } from './site.ts';

const limit = { timeout: 90_000 };
const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));
const hour = 3_600_000;

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-presence-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

const coapAt = (port: number, more: object = {}) => ({
  port,
  leisure: 50,
  'insecure-plain-coap': true,
  ...more,
});

const ids = Array.from({ length: 20 }, (_, at) => `urn:dev:site:${at}`);
const read = { name: 'Get', uri: './DevInfo/DevId' } as const;

describe('presence of devices', limit, () => {
  // conforms: GW-6
  test('after a restart with device-expiry 20, all 20 live devices are still attached, have their credentials, and answer', async (t) => {
    const state = join(folderOf(t), 'gateway.db');
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await using later = new Site(broker.url);
    const tables = {
      gateway: { id: 'gw-1', state },
      limits: { 'device-expiry': 20 },
    };
    const before = await site.gateway(ids, tables);
    const { coapPort } = before;
    for (const id of ids) {
      const device = site.device(id, before, { factory: true });
      await device.start();
      await device.attached;
    }
    await before[Symbol.asyncDispose]();
    const clock = new LeapClock();
    const gateway = await later.gateway(ids, { ...tables, coap: coapAt(coapPort) }, true, { clock });
    // They are pinged, and all of them answer.
    await clock.leap(60_000);
    const outcomes = await Promise.all(ids.map((id) => gateway.manage(id, [read], 20_000)));
    assert.deepEqual(
      outcomes.map(([outcome]) => outcome?.results[0]?.data),
      ids,
    );
    assert.deepEqual(gateway.status().devices, { attached: 20, unreachable: 0, limit: 1000 });
    assert.equal(later.gatewayEvents.count('device.detached'), 0);
  });

  // conforms: GW-6
  test('a dead device is unreachable at the gateway, in its record and at the DM server; it is reached when it is back', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const clock = new LeapClock();
    const id = 'urn:dev:ops:1';
    const headend = await site.headend([]);
    const gateway = await site.gateway([id], { coap: coapAt(0, { advertise: nat.advertised }) }, true, {
      clock,
    });
    nat.leadTo(gateway);
    const device = site.device(id, nat, { factory: true });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: id });
    // The device gets to the watch at its next round.
    await clock.leap(31_000);
    const [inside] = nat.insidePorts;
    nat.lost.add(inside!);
    await clock.leap(5 * hour);
    // The ping and its repetitions go unanswered.
    await clock.leap(11_000);
    const { fields } = await site.gatewayEvents.until('device.unreachable', { device: id });
    // A clock that is set back changes nothing of this.
    clock.moveWall(-100 * hour);
    assert.match(String(fields.reason), /^nothing answers at coap:\/\/127\.0\.0\.1:\d+$/);
    await clock.leap(16_000);
    await site.headendEvents.until('alert.device-presence', { device: id, state: 'unreachable' });
    const view = headend.devices()[0]!;
    assert.deepEqual([view.attached, view.unreachable], [true, fields.reason]);
    assert.ok(Date.parse(view.lastHeard ?? '') < clock.wall() + 96 * hour, String(view.lastHeard));
    const record = `./GwDeviceInventory/Records/${hashedName(id)}`;
    const seen = await headend.manage('gw-1', [
      ...['State', 'Reason', 'LastSeen'].map((leaf) => ({ name: 'Get' as const, uri: `${record}/${leaf}` })),
    ]);
    assert.deepEqual(
      seen.map(({ results }) => results[0]?.data),
      ['unreachable', fields.reason, view.lastHeard],
    );
    assert.equal(gateway.status().devices.unreachable, 1);
    await assert.rejects(gateway.manage(id, [read], 100), { code: 'timeout' }, 'orders are tried');

    nat.lost.clear();
    const reached = site.gatewayEvents.next('device.reached', { device: id });
    // It is asked again by itself. A ping is not enough now, so it opens a session.
    await clock.leap(20 * 60_000);
    await reached;
    await clock.leap(16_000);
    await site.headendEvents.until('alert.device-presence', { device: id, state: 'attached' });
    assert.deepEqual(headend.devices(), [{ id, known: false, gateway: 'gw-1', attached: true }]);
  });

  // conforms: GW-6
  test('another device that answers pings at the address of a dead device is not taken for it', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const clock = new LeapClock();
    const id = 'urn:dev:ops:1';
    const gateway = await site.gateway([id], { coap: coapAt(0, { advertise: nat.advertised }) }, true, {
      clock,
    });
    nat.leadTo(gateway);
    const device = site.device(id, nat, { factory: true });
    await device.start();
    await device.attached;
    await clock.leap(31_000);
    await device[Symbol.asyncDispose]();
    await using printer = await CoapPeer.open();
    nat.takeOver(nat.insidePorts[0]!, printer.socket.address().port);
    const unreachable = site.gatewayEvents.next('device.unreachable', { device: id });
    // By pings alone it would be there for ever. Once a day it has to prove itself.
    await clock.leap(30 * hour);
    const { fields } = await unreachable;
    assert.match(String(fields.reason), /answered Package #0 with 4\.04/);
  });

  // conforms: GW-22
  test('a child gateway reports that its device is unreachable, and all parties above show it', async (t) => {
    const socket = join(folderOf(t), 'admin.sock');
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using top = new Site(broker.url);
    await using below = new Site(broker.url);
    const clock = new LeapClock();
    const id = 'urn:dev:deep:1';
    const headend = await top.headend([]);
    const first = await top.gateway(['gw-2']);
    const second = await below.gateway(
      [id],
      {
        gateway: { id: 'gw-2', state: ':memory:' },
        coap: coapAt(0, { advertise: nat.advertised }),
        ...childTables('gw-2', first),
      },
      false,
      { clock },
    );
    nat.leadTo(second);
    const device = below.device(id, nat, { factory: true });
    await device.start();
    await device.attached;
    await top.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-2' });
    await clock.leap(31_000);
    nat.lost.add(nat.insidePorts[0]!);
    await clock.leap(5 * hour);
    await clock.leap(11_000);
    await clock.leap(16_000);
    const { fields } = await top.headendEvents.until('alert.device-presence', {
      device: id,
      gateway: 'gw-2',
    });
    const record = first.devices().find(({ deviceId }) => deviceId === id);
    assert.deepEqual([record?.state, record?.reason, record?.via], ['unreachable', fields.reason, 'gw-2']);
    assert.equal(headend.devices().find((each) => each.id === id)?.unreachable, fields.reason);

    // The operator sees it too.
    await using admin = new AdminApi(socket, noEvents, { '/devices': () => first.devices() });
    await admin.start();
    const { stdout } = await promisify(execFile)(process.execPath, [main, 'devices', '--socket', socket]);
    assert.match(stdout, /LAST HEARD +UNREACHABLE BECAUSE/);
    assert.match(stdout, new RegExp(`${id} +unreachable .* ${String(fields.reason).replaceAll('.', '\\.')}`));
  });

  test('an order that does not reach its device makes the device unreachable, with the reason', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const [a, b] = ['urn:dev:ops:1', 'urn:dev:ops:2'] as const;
    const gateway = await site.gateway([a, b], { coap: coapAt(0, { advertise: nat.advertised }) });
    nat.leadTo(gateway);
    for (const id of [a, b]) {
      const device = site.device(id, nat, { factory: true });
      await device.start();
      await device.attached;
    }
    nat.swap();
    await assert.rejects(gateway.manage(a, [read], 20_000), { code: 'unauthorized' });
    const { fields } = await site.gatewayEvents.until('device.unreachable', { device: a });
    assert.equal(fields.reason, `${a} answered Package #0 with 4.01`);
  });

  test('a device that lost its memory is bootstrapped again at once, even if another device answers at its old address', async () => {
    await using broker = await startAedes();
    await using nat = await Nat.open();
    await using site = new Site(broker.url);
    const id = 'urn:dev:ops:1';
    const gateway = await site.gateway([id], { coap: coapAt(0, { advertise: nat.advertised }) });
    nat.leadTo(gateway);
    {
      await using first = site.device(id, nat, { factory: true });
      await first.start();
      await first.attached;
    }
    await using printer = await CoapPeer.open();
    nat.takeOver(nat.insidePorts[0]!, printer.socket.address().port);
    const second = site.device(id, nat, { factory: true });
    await second.start();
    await second.attached;
    assert.equal(site.gatewayEvents.count('bootstrap.duplicate-id'), 0);
    assert.equal((await gateway.manage(id, [read], 20_000))[0]?.results[0]?.data, id);
  });

  test('the time of the last message survives a stop, and a kill loses no credential', async (t) => {
    const folder = folderOf(t);
    const state = join(folder, 'gateway.db');
    const socket = join(folder, 'admin.sock');
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const id = ids[0]!;
    const config = join(folder, 'gateway.toml');
    writeFileSync(
      config,
      stringify({
        gateway: { id: 'gw-1', state, 'admin-socket': socket },
        coap: { port: 0, interfaces: ['lo'], 'insecure-plain-coap': true },
        mqtt: { url: broker.url },
        'dm-server': {
          id: 'dm.example',
          'client-secret': secrets.gatewayClient,
          'server-secret': secrets.gatewayServer,
        },
        bootstrap: { device: [{ id, 'factory-secret': secrets.factory(id) }] },
      }),
    );
    const run = async () => {
      const child = fork(main, ['gateway', '--config', config], {
        stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      });
      let log = '';
      const started = Promise.withResolvers<void>();
      child.stdout?.on('data', (chunk) => {
        log += chunk;
        if (log.includes('gateway.started')) started.resolve();
      });
      await started.promise;
      // The admin API is ready a moment after the gateway.
      for (;;) {
        const status = await askGateway(socket, '/status').catch(() => undefined);
        if (status) return { child, coapPort: (status as { coap: { port: number } }).coap.port };
      }
    };
    const lastSeen = async () =>
      ((await askGateway(socket, '/devices')) as { lastSeen: number }[])[0]!.lastSeen;
    const first = await run();
    const device = site.device(id, first, { factory: true });
    await device.start();
    await device.attached;
    await device.contactServer('gw-1');
    const heard = await lastSeen();
    first.child.kill('SIGTERM');
    await once(first.child, 'exit');
    const second = await run();
    assert.equal(await lastSeen(), heard, 'a stop writes it');
    second.child.kill('SIGKILL');
    await once(second.child, 'exit');
    const database = openDatabase(state, gatewaySchema);
    t.after(() => database.close());
    assert.equal(new Credentials(database, 10, sealingOf(state)).get(id)?.attached, true);
  });
});
