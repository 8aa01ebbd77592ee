// Makes gateway.db, headend.db and device.db with real parties. ../README.md says in which tree it is run.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as wait } from 'node:timers/promises';
import { accountNodes } from '../../../src/mo/dm-acc.ts';
import { Site, secrets } from '../../journeys/site.ts';
import { startAedes } from '../../peers/brokers.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-state-'));
const file = (name: string) => join(folder, name);
const files = { gateway: file('gateway.db'), headend: file('headend.db'), device: file('device.db') };
const party = (id: string) => ({
  id,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});
const parties = [party('gw-1'), party('gw-2'), party('gw-3')];
const id = (name: string | number) => `urn:dev:ops:${name}`;
/** Name of the node of a device in the inventory. */
const hashedName = (device: string) => createHash('sha256').update(device).digest('hex').slice(0, 16);
const client = 'urn:dev:lwm2m:1';
const behind = 'urn:dev:deep:1';

/** Keeps a state as it is now, as after a power cut: in one small file, of the journal mode that parties set. */
function keep(party: keyof typeof files): void {
  const copy = join(import.meta.dirname, `${party}.db`);
  rmSync(copy, { force: true });
  using database = new DatabaseSync(files[party], { readOnly: true });
  database.prepare('VACUUM INTO ?').run(copy);
  using kept = new DatabaseSync(copy);
  kept.exec('PRAGMA journal_mode = WAL');
}

/** Waits until a query finds as many rows in the gateway's state, which the gateway goes on writing. */
async function until(count: number, sql: string): Promise<void> {
  for (let found = -1; found !== count; await wait(50)) {
    using database = new DatabaseSync(files.gateway, { readOnly: true });
    found = database.prepare(sql).all().length;
  }
}

/** Answers at /now with a few bytes; at /late with them when `release` is called; at /part with half of them for ever. */
async function downloads() {
  const gate = Promise.withResolvers<void>();
  const body = 'sixteen bytes...';
  const server = createServer(async ({ url = '' }, response) => {
    if (url.startsWith('/late')) await gate.promise;
    response.writeHead(200, { etag: '"v1"', 'content-length': body.length });
    if (url.startsWith('/part')) response.write(body.slice(0, 8));
    else response.end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    release: gate.resolve,
    at: (path: string) => `http://127.0.0.1:${port}/${path}`,
    [Symbol.dispose]: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** An object as TNDS; the module that does this has another place in each tree. */
function toTnds(
  { name, format, type, value, children = [] }: ReturnType<typeof accountNodes>,
  path = '',
): string {
  const of = type === undefined ? '' : `<Type><DDFName>${type}</DDFName></Type>`;
  const inner =
    value === undefined ? children.map((child) => toTnds(child)).join('') : `<Value>${value}</Value>`;
  return `<Node><NodeName>${name}</NodeName>${path}<RTProperties><Format><${format}/></Format>${of}</RTProperties>${inner}</Node>`;
}

const otherAccount = (address: string): string =>
  `<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD>${toTnds(
    accountNodes('other', {
      serverId: 'other.example',
      name: 'Other',
      address,
      own: { name: 'gw-1', secret: secrets.gatewayClient, nonce: new Uint8Array() },
      peer: { name: 'other.example', secret: secrets.gatewayServer, nonce: new Uint8Array() },
    }),
    '<Path>./Inbox</Path>',
  )}</MgmtTree>`;

const command = (name: string, number: number, uri: string, data = '') =>
  `<${name}><CmdID>${number}</CmdID><Item><Target><LocURI>${uri}</LocURI></Target>${data && `<Data>${data}</Data>`}</Item></${name}>`;
const label = (text: string) => command('Replace', 1, './Settings/Label', text);

process.env.POSTERN_SLOT = 'A';
writeFileSync(file('ca.pem'), '');
{
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  await using otherSite = new Site(broker.url);
  await using childSite = new Site(broker.url);
  using server = await downloads();
  await using silence = createSocket('udp4').bind(0, '127.0.0.1');
  await once(silence, 'listening');
  const headendTables = {
    headend: { id: 'dm.example', state: files.headend, 'session-timeout': 20 },
    gateway: parties,
  };
  const headend = await site.headend([4, 6].map(id), headendTables);
  const other = await otherSite.headend([], {
    headend: { id: 'other.example', state: ':memory:', 'session-timeout': 20 },
  });
  const gateway = await site.gateway([...[1, 2, 3, 5].map(id), 'gw-2'], {
    gateway: { id: 'gw-1', state: files.gateway },
    tunnel: { timeout: 2 },
    lwm2m: { device: [{ id: client }], 'insecure-no-security': true },
    http: { port: 0, device: [{ id: id('http'), 'client-secret': 'c', 'server-secret': 's' }] },
    update: { slots: 'directory', directory: file('slots'), authority: file('ca.pem') },
  });

  // Devices of each kind.
  const start = async <T extends { start(): Promise<void>; attached: Promise<void> }>(
    device: T,
  ): Promise<T> => {
    await device.start();
    await device.attached;
    return device;
  };
  const blank = (number: number, more: object = {}) =>
    site.device(id(number), gateway, { factory: true, more: { model: 'Meter', ...more } });
  await start(blank(1, { state: files.device }));
  const asleep = await start(blank(2));
  const leaving = await start(blank(3));
  const moving = await start(
    site.device(id(4), gateway, { server: true, more: { state: file('moving.db') } }),
  );
  const thing = await start(site.client(client, gateway));
  const child = await childSite.gateway(
    [behind],
    {
      gateway: { id: 'gw-2', state: ':memory:' },
      mqtt: undefined,
      parent: {
        id: 'gw-1',
        uri: `coaps://127.0.0.1:${gateway.coapsPort}`,
        'factory-secret': secrets.factory('gw-2'),
      },
    },
    false,
  );
  await site.headendEvents.until('alert.device-attach', { device: 'gw-2' });
  await start(childSite.device(behind, child, { factory: true }));
  for (const device of [id(1), id(2), id(3), id(4), client, behind])
    await site.headendEvents.until('alert.device-attach', { device });

  // What servers did, and heard the end of.
  const done = await headend.fanOut('gw-1', {
    name: 'label',
    command: label('hall'),
    targets: { devices: [id(1), id('nobody')] },
  });
  await site.headendEvents.until('alert.command-fanout', { correlator: done.correlator });
  const trigger = (...numbers: number[]) => ({
    devices: numbers.map(id),
    targets: { devices: numbers.map(id) },
    operations: [],
  });
  const woken = await headend.trigger('gw-1', { name: 'morning', ...trigger(4) });
  await site.headendEvents.until('alert.device-trigger', { correlator: woken.correlator });
  await headend.putGroup('gw-1', { id: 'night shift', devices: [id(1), id(2)] });
  await headend.stageImage('gw-1', { name: 'pushed', version: '1.1.0', data: Buffer.from('an image') });
  await headend.stageImage('gw-1', { name: 'wrong', data: Buffer.from('an image'), hash: 'ab'.repeat(32) });
  const loaded = await headend.stageImage('gw-1', {
    name: 'loaded',
    version: '1.2.0',
    url: server.at('now'),
  });
  await site.headendEvents.until('alert.image-operation', { correlator: loaded.correlator });
  const given = await headend.manage('gw-1', [
    {
      name: 'Add',
      uri: './Inbox',
      format: 'xml',
      type: 'application/vnd.syncml.dmtnds+xml',
      data: otherAccount(broker.url),
    },
    {
      name: 'Replace',
      uri: './GwFanout/Fanout?prop=ACL',
      data: 'Add=dm.example+other.example&Delete=dm.example+other.example&Exec=dm.example&Get=dm.example&Replace=dm.example',
    },
    {
      name: 'Replace',
      uri: `./GwDeviceInventory/Records/${hashedName(id(2))}?prop=ACL`,
      data: 'Delete=dm.example&Exec=dm.example+other.example&Get=dm.example',
    },
    { name: 'Replace', uri: './GwConfig/DetachAlert', format: 'bool', data: 'true' },
    { name: 'Replace', uri: './GwFanout/Fanout/label?prop=Title', data: 'Names of rooms' },
  ]);
  assert.ok(given.every(({ status }) => status === 200));
  headend.assign(id(9), 'gw-2');

  // What is under way when the server goes away, and what waits for the server from then on.
  await thing[Symbol.asyncDispose]();
  await asleep[Symbol.asyncDispose]();
  const update = [
    command('Add', 1, './FwUpdate/PkgVersion', '2.0.0'),
    command(
      'Replace',
      2,
      './FwUpdate/DownloadAndUpdate/PkgURL',
      `coap://127.0.0.1:${silence.address().port}/fw`,
    ),
    command('Exec', 3, './FwUpdate/DownloadAndUpdate'),
  ];
  await headend.fanOut('gw-1', {
    name: 'update',
    command: update.join(''),
    targets: { devices: [id(1), id(2), id('nobody')] },
    returnFormat: 2,
    timeout: 300,
  });
  await headend.fanOut('gw-1', {
    name: 'reboot',
    command: command('Exec', 1, './3/0/4'),
    targets: { devices: [client] },
  });
  await headend.trigger('gw-1', { name: 'wake', ...trigger(4, 6) });
  const unreached = { targets: { devices: [id(2)] }, timeout: 2 };
  await headend.fanOut('gw-1', { name: 'gone', command: label('cellar'), ...unreached });
  await headend.trigger('gw-1', { name: 'evening', ...trigger(4, 6), deadline: 2 });
  await other.fanOut('gw-1', { name: 'mine', command: label('roof'), ...unreached });
  await headend.stageImage('gw-1', { name: 'late', url: server.at('late') });
  await headend.stageImage('gw-1', { name: 'coming', url: server.at('part') });
  await headend.manage('gw-1', [
    { name: 'Replace', uri: './FwUpdate/Download/PkgURL', data: server.at('late-bundle') },
    { name: 'Exec', uri: './FwUpdate/Download', correlator: 'order-8' },
  ]);
  await headend[Symbol.asyncDispose]();
  await other[Symbol.asyncDispose]();
  server.release();
  await leaving.detach();
  await start(blank(5));
  await until(7, 'SELECT 1 FROM outbox');
  await until(4, 'SELECT DISTINCT state FROM campaign_target');
  gateway.firmware.install({ url: server.at('part-bundle') });
  await until(1, "SELECT 1 FROM gateway_update WHERE body LIKE '%validator%'");
  keep('gateway');
  keep('device');
  await gateway[Symbol.asyncDispose]();

  // A device that moves while its gateway is away.
  await moving[Symbol.asyncDispose]();
  await using back = new Site(broker.url);
  await back.headend([id(4)], headendTables);
  const third = await back.gateway([], { gateway: { id: 'gw-3', state: ':memory:' } });
  await start(back.device(id(4), third, { server: true, more: { state: file('moving.db') } }));
  await back.headendEvents.until('device.moved', { device: id(4), from: 'gw-1' });
  keep('headend');
}
rmSync(folder, { recursive: true });
