import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { Acls, Nodes } from '../../src/dm/stored-nodes.ts';
import { Campaigns } from '../../src/gateway/store/campaigns.ts';
import { Credentials } from '../../src/gateway/store/credentials.ts';
import { Images } from '../../src/gateway/store/images.ts';
import { Inventory } from '../../src/gateway/store/inventory.ts';
import { Outbox } from '../../src/gateway/store/outbox.ts';
import { Registrations } from '../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { UpdateRecords } from '../../src/gateway/store/update-record.ts';
import { Parties } from '../../src/headend/parties.ts';
import { Records } from '../../src/headend/records.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { HandClock } from '../hand-clock.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { sealingOf } from '../state-files.ts';
import { damage } from './damage.ts';
import { Site } from './site.ts';

const limit = { timeout: 120_000 };
const seed = Number(process.env.POSTERN_SEED ?? 20_261_128);
const runs = Number(process.env.POSTERN_RUNS ?? 40);
const folder = mkdtempSync(join(tmpdir(), 'postern-damaged-'));
after(() => rmSync(folder, { recursive: true }));

/** Nobody listens there. */
const noBroker = 'mqtt://127.0.0.1:1';
const live = 'urn:dev:ops:live';
const lwm2m = { 'insecure-no-security': true, device: [{ id: 'urn:dev:ops:client' }] };
const changes = (state: string) => ({ gateway: { id: 'gw-1', state }, lwm2m });
const command =
  '<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>x</Data></Item></Replace>';

/** The state of a gateway with rows in each table, and of a device that has its account. */
async function furnish(): Promise<{ gateway: string; device: string }> {
  const gateway = join(folder, 'gateway.db');
  const device = join(folder, 'device.db');
  {
    await using site = new Site(noBroker);
    const served = await site.gateway([live], changes(gateway), false);
    const attached = site.device(live, served, { factory: true, more: { state: device } });
    await attached.start();
    await attached.attached;
    const client = site.client('urn:dev:ops:client', served);
    await client.start();
    await site.gatewayEvents.until('registration.proven');
  }
  const database = openDatabase(gateway, gatewaySchema);
  const inventory = new Inventory(database, 100);
  const credentials = new Credentials(database, 100, sealingOf(gateway));
  const registrations = new Registrations(database, 100);
  const [registration] = registrations.values();
  for (const at of [1, 2, 3]) {
    const deviceId = `urn:dev:ops:${at}`;
    inventory.put({ ...inventory.get(live)!, deviceId, ...(at === 3 && { via: 'gw-2' }) });
    credentials.put({ ...credentials.get(live)!, deviceId, clientName: deviceId });
    registrations.put({ ...registration!, deviceId: `client-${at}`, location: `there${at}` });
  }
  const put = [
    { path: 'GwFanout/Fanout/f', format: 'node' },
    { path: 'GwFanout/Fanout/f/Command', format: 'xml', value: command },
    { path: 'GwFanout/Fanout/f/Deadline', format: 'int', value: '3600' },
    { path: 'GwImageInventory/Images/i', format: 'node' },
    { path: 'GwImageInventory/Images/i/PkgURL', format: 'chr', value: 'http://127.0.0.1:1/i' },
  ] as const;
  new Nodes(database).apply({ put }, () => {});
  const acls = new Map([
    ['./GwFanout', 'Get=*&Replace=dm.example&Exec=dm.example&Add=dm.example'],
    ['./GwImageInventory/Images/i', 'Get=*&Exec=dm.example'],
  ]);
  new Acls(database, {}).apply(acls, () => {});
  const campaigns = new Campaigns(database, 'fanout');
  const devices = ['urn:dev:ops:1', 'urn:dev:ops:2', 'urn:dev:ops:3'];
  campaigns.begin({ name: 'f', state: 1, server: 'dm.example', correlator: 'c-1' }, devices);
  const outcome = JSON.stringify({ status: 200, parts: [{ status: 200, results: [] }] });
  campaigns.setTarget('f', 'urn:dev:ops:1', 'ended', 200, outcome);
  campaigns.setTarget('f', 'urn:dev:ops:2', 'accepted', undefined, outcome);
  new Campaigns(database, 'trigger').begin(
    { name: 't', state: 2, server: 'dm.example', correlator: undefined },
    devices,
  );
  const images = new Images(database);
  images.put({ name: 'i', state: 1, inline: false, used: 0, server: 'dm.example', correlator: 'c-2' });
  images.put({
    name: 'j',
    state: 4,
    inline: false,
    used: 0,
    size: 5,
    hash: 'ab',
    validator: '"v"',
    result: 200,
  });
  const outbox = new Outbox(database, 100);
  outbox.add('device-detach', 'urn:dev:ops:9', JSON.stringify({ reason: 'left' }));
  outbox.add('image-operation', 'k', JSON.stringify({ uri: './x', result: '<r/>' }), 'other.example');
  new UpdateRecords(database).put({
    operation: 'Download',
    url: 'http://127.0.0.1:1/u',
    phase: 'downloading',
  });
  await database.close();
  return { gateway, device };
}

/** Copies a state file, and changes one value of it. */
function damaged(file: string, at: number): { file: string; what: string } {
  const copy = join(folder, `${basename(file)}-${at}.db`);
  cpSync(file, copy);
  if (existsSync(`${file}.key`)) cpSync(`${file}.key`, `${copy}.key`);
  const entropy = seededEntropy(seed + at);
  // The first numbers of seeds that follow each other are alike.
  for (let skip = 0; skip < 10; skip++) entropy.uniform();
  return { file: copy, what: `seed ${seed + at}: ${JSON.stringify(damage(copy, entropy))}` };
}

describe(`state with one damaged value (POSTERN_SEED=${seed} POSTERN_RUNS=${runs})`, limit, async () => {
  const state = await furnish();

  test('a gateway starts, and serves all that is not damaged', async () => {
    await using peer = await CoapPeer.open();
    for (let at = 0; at < runs; at++) {
      const { file, what } = damaged(state.gateway, at);
      await using site = new Site(noBroker);
      const gateway = await site.gateway([live], changes(file), false).catch((thrown) => {
        throw new Error(what, { cause: thrown });
      });
      const found = await peer.call(gateway.coapPort, { method: Code.GET, path: ['.well-known', 'core'] });
      assert.equal(found.name, '2.05', what);
      const fine = [live, 'urn:dev:ops:client', 'urn:dev:ops:1', 'urn:dev:ops:2', 'urn:dev:ops:3'];
      const known = gateway.devices().map(({ deviceId }) => deviceId);
      const missing = fine.filter((id) => !known.includes(id));
      assert.ok(missing.length <= 1 && missing.every((id) => what.includes(id)), `${missing}: ${what}`);
      JSON.stringify([gateway.status(), gateway.devices()]);
      // The device has its account still, unless its own credential is damaged: then it gets a new one.
      const copy = join(folder, `device-${at}.db`);
      cpSync(state.device, copy);
      const device = site.device(live, gateway, { factory: true, more: { state: copy } });
      await device.start();
      await device.attached;
      const failures = site.gatewayEvents.all.filter(({ name }) => name === 'background.failed');
      assert.deepEqual(failures, [], what);
    }
  });

  test('a device starts, and attaches', async () => {
    for (let at = 0; at < runs; at++) {
      const { file, what } = damaged(state.device, at);
      await using site = new Site(noBroker);
      const gateway = await site.gateway([live], {}, false);
      const device = site.device(live, gateway, { factory: true, more: { state: file } });
      await device.start().catch((thrown) => {
        throw new Error(what, { cause: thrown });
      });
      // Who may replace the account of a gateway stands in an ACL. Where that is damaged, nobody may.
      const refused = site.deviceEvents.until('device.attach-failed', { code: 'unauthorized' });
      const end = await Promise.race([device.attached.then(() => 'attached'), refused.then(() => 'refused')]);
      assert.ok(end === 'attached' || what.includes('"acl"') || what.includes('DMAcc'), what);
    }
  });
});

test('a head-end with a damaged value starts, and lists the rest', limit, async () => {
  const original = join(folder, 'headend.db');
  {
    const database = openDatabase(original, headendSchema);
    const parties = new Parties({ gateway: [], device: [] }, database);
    const records = new Records(database, new HandClock());
    for (const at of [1, 2]) {
      parties.associate(`urn:dev:ops:${at}`, 'gw-1');
      records.addAlert('DeviceAttach', 'gw-1', `urn:dev:ops:${at}`, { mode: 0 });
      records.putResult({
        kind: 'CommandFanout',
        gateway: 'gw-1',
        name: `f${at}`,
        correlator: 'c',
        result: '<r/>',
      });
      records.assign(`urn:dev:ops:${at}`, 'gw-1');
      database.prepare('INSERT INTO pending_detach (gateway, device) VALUES (?, ?)').run('gw-2', `d${at}`);
    }
    await database.close();
  }
  for (let at = 0; at < runs; at++) {
    const { file, what } = damaged(original, at);
    await using site = new Site(noBroker);
    const headend = await site
      .headend(['urn:dev:ops:1'], { headend: { id: 'dm.example', state: file } }, false)
      .catch((thrown) => {
        throw new Error(what, { cause: thrown });
      });
    const { records } = headend;
    const lists = [
      headend.devices().filter(({ attached }) => attached),
      records.alerts(10),
      [...records.results('CommandFanout'), ...records.results('DeviceTrigger')],
      records.assignments(),
    ];
    assert.ok(lists.every((list) => list.length >= 1) && lists.flat().length >= 7, what);
  }
});
