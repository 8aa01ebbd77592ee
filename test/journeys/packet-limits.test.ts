import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { Outbox } from '../../src/gateway/store/outbox.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { childTables, Site, secrets } from './site.ts';

const limit = { timeout: 120_000 };
const alerts = 400;

/** A state file of a gateway whose outbox holds attach alerts of 400 devices: about 200 kB in one session. */
async function stateWithAlerts(folder: string): Promise<string> {
  const file = join(folder, 'gateway.db');
  const database = openDatabase(file, gatewaySchema);
  const outbox = new Outbox(database, 5000);
  for (let at = 0; at < alerts; at++)
    outbox.add(
      'device-attach',
      `urn:dev:${at}`,
      JSON.stringify({ mode: 0, bootstrap: 'local', manufacturer: 'Maker & Sons', model: 'Model 12345' }),
    );
  await database.settled();
  await database.close();
  return file;
}

const devInfo = [{ name: 'Get', uri: './DevInfo?list=StructData' } as const];
const party = (name: string) => ({
  id: name,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

describe('a broker that takes 16 kB, and alerts of more than that', limit, () => {
  for (const [setting, protocol, lost] of [
    ['max_packet_size 16384', '5', 0],
    ['message_size_limit 16384', '5', 0],
    ['max_packet_size 16384', '3.1.1', 12],
  ] as const)
    test(`${setting}, MQTT ${protocol}: all alerts are delivered, and the gateway can be managed`, async (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'postern-limits-'));
      t.after(() => rmSync(folder, { recursive: true }));
      await using broker = await startMosquitto(['allow_anonymous true', setting]);
      await using site = new Site(broker.url);
      const headend = await site.headend([]);
      const gateway = await site.gateway([], {
        gateway: { id: 'gw-1', state: await stateWithAlerts(folder) },
        mqtt: { url: broker.url, protocol },
      });
      while (gateway.status().outbox.waiting > 0) await site.gatewayEvents.next('dm.session-ended');
      assert.equal(headend.devices().length, alerts);
      const [seen] = await headend.manage('gw-1', devInfo);
      assert.equal(seen?.status, 200);
      const kicks = site.gatewayEvents.count('mqtt.disconnected');
      assert.ok(kicks <= lost, `the broker ended ${kicks} connections`);
    });

  test('the broker is that of the parent: a child gateway sends smaller messages after 4.13', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-limits-'));
    t.after(() => rmSync(folder, { recursive: true }));
    await using broker = await startMosquitto(['allow_anonymous true', 'max_packet_size 16384']);
    await using top = new Site(broker.url);
    await using below = new Site(broker.url);
    const headend = await top.headend([], { gateway: [party('gw-1'), party('gw-2')] });
    const parent = await top.gateway(['gw-2']);
    await below.gateway(
      [],
      {
        gateway: { id: 'gw-2', state: await stateWithAlerts(folder) },
        ...childTables('gw-2', parent),
      },
      false,
    );
    await top.headendEvents.until('alert.device-attach', { device: 'gw-2', gateway: 'gw-1' });
    while (headend.devices().length < alerts + 1) await top.headendEvents.next('alert.device-attach');
    const [seen] = await headend.manage('gw-2', devInfo);
    assert.equal(seen?.status, 200);
  });
});
