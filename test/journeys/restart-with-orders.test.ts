import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, describe, test } from 'node:test';
import type { Operation } from '../../src/dm/server-session.ts';
import type { EventRecorder } from '../event-recorder.ts';
import { startAedes } from '../peers/brokers.ts';
import { Site } from './site.ts';

const limit = { timeout: 60_000 };
const folder = mkdtempSync(join(tmpdir(), 'postern-orders-'));
after(() => rmSync(folder, { recursive: true }));

const order = './GwFanout/Fanout/label';
const command =
  '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./DevInfo/Lang</LocURI></Target><Data>de</Data></Item></Replace>';
const absent = 'urn:dev:ops:absent';
/** A fan-out to a device that has gone silent. The gateway waits an hour for it. */
const fanOut: readonly Operation[] = [
  { name: 'Add', uri: `${order}/Command`, format: 'xml', data: command },
  { name: 'Add', uri: `${order}/Timeout`, format: 'int', data: '3600' },
  { name: 'Add', uri: `${order}/Targets/DeviceList/a/DeviceID`, data: absent },
  { name: 'Exec', uri: `${order}/Start`, correlator: 'c-1' },
];
const nowhere: Operation = { name: 'Get', uri: './Nowhere' };

const label = command.replace('./DevInfo/Lang', './Settings/Label');

interface Start {
  /** What the DM server does at the gateway before the restart. */
  readonly operations?: readonly Operation[];
  /** What happens to the state file while the gateway is stopped. */
  readonly change?: string;
}

/** A head-end and a gateway that was restarted. */
async function restarted({ operations = [], change = '' }: Start, brokerUrl: string) {
  const state = join(mkdtempSync(join(folder, 'gw-')), 'state.db');
  const site = new Site(brokerUrl);
  const headend = await site.headend([]);
  {
    await using before = new Site(brokerUrl);
    const gateway = await before.gateway([absent], { gateway: { id: 'gw-1', state } });
    if (operations.length > 0) {
      await using device = before.device(absent, gateway, { factory: true });
      await device.start();
      await device.attached;
    }
    if (operations.length > 0) await headend.manage('gw-1', operations);
  }
  const database = new DatabaseSync(state);
  database.exec(change);
  database.close();
  const gateway = await site.gateway([], { gateway: { id: 'gw-1', state } });
  return { site, headend, gateway, state };
}

// conforms: GW-12
test(
  'a stop in the middle of a fan-out is the outcome of no device: each is done after the restart',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const ids = Array.from({ length: 80 }, (_, at) => `urn:dev:ops:${at}`);
    const config = { id: 'gw-1', state: join(mkdtempSync(join(folder, 'gw-')), 'state.db') };
    const coap = { leisure: 50, 'insecure-plain-coap': true };
    let port = 0;
    let stopped: EventRecorder;
    {
      await using before = new Site(broker.url);
      const gateway = await before.gateway(ids, { gateway: config, coap: { ...coap, port: 0 } });
      port = gateway.coapPort;
      for (const id of ids) await site.device(id, gateway, { factory: true }).start();
      await Promise.all(ids.map((device) => before.gatewayEvents.until('device.attached', { device })));
      await headend.fanOut('gw-1', { name: 'stop', targets: { devices: ids }, command: label });
      // The stop comes when the first device has its order, and sessions with 64 others are under way.
      await site.deviceEvents.until('device.command', { command: 'Replace' });
      stopped = before.gatewayEvents;
    }
    assert.equal(stopped.count('fanout.ended'), 0);
    await site.gateway(ids, { gateway: config, coap: { ...coap, port } });
    await site.headendEvents.until('alert.command-fanout', { gateway: 'gw-1' });
    const [{ result } = { result: '' }] = headend.fanouts();
    assert.match(result, /^<CampaignResult Total="80" Done="80" Failed="0" Pending="0">/);
  },
);

test(
  'a stop does not wait for a device that does not answer a trigger, and the trigger goes on after the restart',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([absent]);
    const config = { id: 'gw-1', state: join(mkdtempSync(join(folder, 'gw-')), 'state.db') };
    await using before = new Site(broker.url);
    const gateway = await before.gateway([absent], { gateway: config });
    {
      await using device = before.device(absent, gateway, { factory: true });
      await device.start();
      await device.attached;
    }
    const trigger = { name: 't', targets: {}, devices: [absent], operations: [], deadline: 3600 };
    await headend.trigger('gw-1', trigger);
    await before.gatewayEvents.until('trigger.started');
    const begun = performance.now();
    await gateway[Symbol.asyncDispose]();
    // A request to a silent device takes 45 s at least until it is given up (RFC 7252 section 4.8.2).
    assert.ok(performance.now() - begun < 20_000);
    assert.equal(before.gatewayEvents.count('trigger.ended'), 0);
    using database = new DatabaseSync(config.state);
    const target = database.prepare('SELECT state FROM campaign_target').get();
    assert.equal(target?.state, 'pending');
  },
);

describe('a gateway that is started again starts, whatever an order has left behind', limit, () => {
  const campaign = (more = '') =>
    `INSERT INTO campaign VALUES ('fanout', 'label', 1, 'dm.example', 'c-1');
     INSERT INTO campaign_target VALUES ('fanout', 'label', 'begun', 'begun', NULL, NULL);
     INSERT INTO campaign_target VALUES ('fanout', 'label', 'pending', 'pending', NULL, NULL);
     INSERT INTO campaign_target VALUES ('fanout', 'label', 'done', 'ended', 200, '{"status":200,"parts":[]}'); ${more}`;
  const nodes = `INSERT INTO node (path, format, value, octets) VALUES ('GwFanout/Fanout/label', 'node', NULL, 0);
     INSERT INTO node (path, format, value, octets) VALUES ('GwFanout/Fanout/label/Command', 'xml', CAST('${command}' AS BLOB), 0)`;

  // conforms: GW-12
  test('an order whose nodes are gone ends, and its result says what is known of each device', async () => {
    await using broker = await startAedes();
    const { site, headend } = await restarted({ change: campaign() }, broker.url);
    await using _ = site;
    await site.gatewayEvents.until('fanout.unreadable', { name: 'label', server: 'dm.example' });
    await site.headendEvents.until('alert.command-fanout', { name: 'label', correlator: 'c-1' });
    const [{ result } = { result: '' }] = headend.fanouts();
    assert.match(result, /^<CampaignResult Total="3" Done="1" Failed="2" Pending="0">/);
    assert.match(result, /<Group Status="215" Commands="" Count="1"><Device ID="pending"\/>/);
    assert.match(result, /<Group Status="500" Commands="" Count="1"><Device ID="begun"\/>/);
  });

  test('a Command that was emptied while the fan-out ran', async () => {
    await using broker = await startAedes();
    const empty: Operation = { name: 'Replace', uri: `${order}/Command`, format: 'xml', data: '' };
    const { site } = await restarted({ operations: [...fanOut, empty] }, broker.url);
    await using _ = site;
    await site.headendEvents.until('alert.command-fanout', { name: 'label', correlator: 'c-1' });
    await site.gatewayEvents.until('fanout.unreadable', { name: 'label' });
  });

  test('a Start within an Atomic that failed', async () => {
    await using broker = await startAedes();
    const atomic: Operation = { name: 'Atomic', operations: [...fanOut, nowhere] };
    const { site, headend, state } = await restarted({ operations: [atomic] }, broker.url);
    await using _ = site;
    const [found] = await headend.manage('gw-1', [{ name: 'Get', uri: order }]);
    assert.equal(found?.status, 404);
    const database = new DatabaseSync(state);
    assert.deepEqual(database.prepare('SELECT name FROM campaign WHERE state = 1').all(), []);
    database.close();
  });

  test('a device of an order whose row cannot be read: its outcome is 500, the other devices go on', async () => {
    await using broker = await startAedes();
    const change = campaign(`UPDATE campaign_target SET outcome = '{' WHERE device = 'done'; ${nodes}`);
    const { site, headend, gateway } = await restarted({ change }, broker.url);
    await using _ = site;
    await site.gatewayEvents.until('state.row-set-aside', { table: 'campaign_target' });
    await site.headendEvents.until('alert.command-fanout', { name: 'label', correlator: 'c-1' });
    const [{ result } = { result: '' }] = headend.fanouts();
    assert.match(result, /Total="3" .*<Group Status="500" Commands="" Count="1"><Device ID="done"\/>/);
    assert.equal(gateway.status().setAside, 1);
  });
});

test(
  'rows that cannot be read are told upstream, each table once, and show in the status',
  limit,
  async () => {
    await using broker = await startAedes();
    const change = `INSERT INTO image (name, state, inline, used) VALUES ('i', 77, 0, 0), ('j', 78, 0, 0);
    INSERT INTO outbox (kind, device_id, body) VALUES ('device-detach', 'urn:dev:ops:1', '{"reason"');
    INSERT INTO outbox (kind, device_id, body) VALUES ('of-a-later-version', 'urn:dev:ops:2', '{}');
    INSERT INTO outbox (kind, device_id, body) VALUES ('device-detach', 'urn:dev:ops:3', '{"reason":"left"}');
    INSERT INTO gateway_update (number, body) VALUES (1, '[]')`;
    const { site, headend, gateway } = await restarted({ change }, broker.url);
    await using _ = site;
    await site.headendEvents.until('alert.device-detach', { device: 'urn:dev:ops:3' });
    const reason = '2 rows of the table image cannot be read: state is none of 0, 1, 2, 3, 4';
    await site.headendEvents.until('alert.gateway-fault', { gateway: 'gw-1', kind: 'state', reason });
    const broken = 'body is not JSON';
    await site.gatewayEvents.until('state.row-set-aside', { table: 'outbox', rows: 2, reason: broken });
    await site.gatewayEvents.until('alert.delivered', { alert: 'gateway-fault', device: 'outbox' });
    assert.equal(site.gatewayEvents.count('state.row-set-aside'), 2);
    assert.equal(gateway.status().setAside, 4);
    assert.equal(gateway.status().outbox.waiting, 0);
    const faults = headend.records.alerts(10).filter(({ kind }) => kind === 'GatewayFault');
    assert.ok(faults.length >= 2);
  },
);
