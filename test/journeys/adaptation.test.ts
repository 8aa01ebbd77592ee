import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { hashedName } from '../../src/base/hashed-name.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { readResult } from '../../src/mo/campaign-result.ts';
import { Code, codeText } from '../../src/wire/coap/codes.ts';
import { Option, uint, uriOptions } from '../../src/wire/coap/options.ts';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { turn } from '../wire/coap/wire.ts';
import { childTables, Site } from './site.ts';

const id = 'urn:dev:lwm2m:1';
const other = 'urn:dev:dm:1';

const clients = (...ids: readonly string[]) => ({
  lwm2m: { device: ids.map((each) => ({ id: each })), 'insecure-no-security': true },
});

/** Stages an image, and has the client told to download it from the gateway. Returns its bytes. */
async function giveImage(site: Site, headend: Headend): Promise<Buffer> {
  const image = randomBytes(40_000);
  await headend.stageImage('gw-1', { name: 'fw', version: '2', data: image });
  await site.gatewayEvents.until('image.ready');
  const write = `<Replace><CmdID>1</CmdID><Item><Target><LocURI>./5/0/1</LocURI></Target><Data>gw-image:fw</Data></Item></Replace>`;
  assert.match(await fanOut(site, headend, 'give', write), /Done="1"/);
  return image;
}

/** Starts a fan-out to all devices and waits for its end. Returns the result as XML. */
async function fanOut(site: Site, headend: Headend, name: string, command: string, more: object = {}) {
  const { correlator } = await headend.fanOut('gw-1', {
    name,
    command,
    targets: {},
    returnFormat: 0,
    ...more,
  });
  await site.headendEvents.until('alert.command-fanout', { correlator });
  return headend.fanouts().find((each) => each.name === name)?.result ?? '';
}

/** Get commands as XML. */
const get = (...uris: readonly string[]) =>
  uris
    .map(
      (uri, at) => `<Get><CmdID>${at + 1}</CmdID><Item><Target><LocURI>${uri}</LocURI></Target></Item></Get>`,
    )
    .join('');

/** Data of the result for this URI. */
const at = (uri: string) => (operation: { results: readonly { uri: string; data: string | Uint8Array }[] }) =>
  operation.results.find((result) => result.uri === uri)?.data;

/** Makes the gateway do operations on the client. */
const manage = async (gateway: Gateway, operations: Parameters<Gateway['manage']>[1]) =>
  await gateway.manage(id, operations, 20_000);

/** Starts an OMA DM device and an LwM2M client at one gateway, and waits until both are reported. */
async function mixedFleet(site: Site): Promise<Headend> {
  const headend = await site.headend([]);
  const gateway = await site.gateway([other], clients(id));
  const device = site.device(other, gateway, { factory: true });
  const client = site.client(id, gateway);
  for (const each of [device, client]) {
    await each.start();
    await each.attached;
    await site.headendEvents.until('alert.device-attach', { device: each.id });
  }
  return headend;
}

describe('adaptation mode: LwM2M clients (GwMO)', { timeout: 120_000 }, () => {
  // conforms: GW-26
  test('a client is bootstrapped, attached and reported, managed by the DM server, and detached', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway([], clients(id));
    const client = site.client(id, gateway);
    await client.start();
    await client.attached;
    await site.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-1' });

    const record = `./GwDeviceInventory/Records/${hashedName(id)}`;
    const seen = await headend.manage('gw-1', [
      ...['Mode', 'Protocol', 'Bootstrap', 'Man', 'Mod', 'FwV', 'DevTyp', 'Objects', 'ObjectNames'].map(
        (leaf) => ({
          name: 'Get' as const,
          uri: `${record}/${leaf}`,
        }),
      ),
      { name: 'Get', uri: './GwConfig/SupportedModes' },
    ]);
    assert.deepEqual(
      seen.map(({ results }) => results[0]?.data),
      [
        '2',
        'LwM2M',
        'local',
        'Maker & Sons',
        'T1',
        '1.0.0',
        'thermometer',
        '/3/0 /5/0 /3303/0 /3311/0 /1/0',
        '1 LwM2M Server, 3 Device, 5 Firmware Update, 3303 Temperature, 3311 Light Control',
        '0,1,2',
      ],
    );

    const command = `${get('./3303/0/5700', './DevDetail/FwV')}<Replace><CmdID>8</CmdID><Item><Target><LocURI>./3303/0/5750</LocURI></Target><Data>cellar</Data></Item></Replace>`;
    assert.equal(
      await fanOut(site, headend, 'read', command),
      `<CampaignResult Total="1" Done="1" Failed="0" Pending="0"><Group Status="200" Commands="200 200 200" Count="1"><Device ID="${id}"><Result URI="./3303/0/5700" Format="float">21.5</Result><Result URI="./DevDetail/FwV" Command="1">1.0.0</Result></Device></Group></CampaignResult>`,
    );
    assert.equal(client.value('/3303/0/5750'), 'cellar');

    await client.detach();
    await site.headendEvents.until('alert.device-detach', { device: id, gateway: 'gw-1', reason: 'left' });
    assert.equal(gateway.devices().length, 0);
  });

  // conforms: GW-26
  test('one fan-out reaches an OMA DM device and an LwM2M client', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await mixedFleet(site);
    const result = await fanOut(site, headend, 'all', get('./DevInfo/Man', './DevInfo/DevId'), {
      returnFormat: 0,
    });
    for (const each of [id, other])
      assert.ok(
        result.includes(
          `<Device ID="${each}"><Result URI="./DevInfo/Man">Maker &amp; Sons</Result><Result URI="./DevInfo/DevId" Command="1">${each}</Result></Device>`,
        ),
        result,
      );
    assert.match(result, /Total="2" Done="2"/);
  });

  // conforms: GW-26
  test('DM commands on an LwM2M client have the expected statuses and results', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], clients(id));
    const client = site.client(id, gateway);
    await client.start();
    await client.attached;
    await site.gatewayEvents.until('device.attached', { device: id });

    const statuses = async (...operations: Parameters<Gateway['manage']>[1]) =>
      (await manage(gateway, operations)).map(({ status }) => status);
    const data = async (uri: string) => (await manage(gateway, [{ name: 'Get', uri }]))[0]?.results[0]?.data;

    assert.equal(await data('.'), 'DevInfo/DevDetail/FwUpdate/1/3/5/3303/3311');
    assert.equal(await data('./DevInfo'), 'DevId/Man/Mod');
    assert.equal(await data('./3311'), '0');
    assert.equal(await data('./3311/0'), '5850/5851');
    assert.equal(
      await data('./3/0'),
      '0/1/2/3/4/9/13/14/15/16/17',
      'with resource 4, which can only be executed',
    );
    assert.equal(await data('./3311/0/5850?prop=Format'), 'bool');
    assert.equal(await data('./3311/0/5850?prop=Title'), 'On/Off');
    assert.equal(await data('./3?prop=Title'), 'Device');
    const [list] = await manage(gateway, [{ name: 'Get', uri: './3311?list=StructData' }]);
    assert.deepEqual(
      list?.results.map(({ uri, format, data: value }) => [uri, format, value]),
      [
        ['./3311', 'node', '0'],
        ['./3311/0', 'node', '5850/5851'],
        ['./3311/0/5850', 'bool', 'false'],
        ['./3311/0/5851', 'int', '40'],
      ],
    );
    const [whole] = await manage(gateway, [{ name: 'Get', uri: '.?list=Struct' }]);
    assert.equal(at('./3303/0/5700')(whole!), '', 'without values');

    const set = (uri: string, value: string, name: 'Replace' | 'Add' = 'Replace') =>
      ({ name, uri, data: value }) as const;
    assert.deepEqual(
      await statuses(
        set('./3311/0/5850', 'true'),
        set('./3311/0/5851', 'bright'),
        set('./3/0/0', 'Other'),
        set('./3311/0', '1'),
        set('./3311/9/5850', 'true'),
        set('./x/0/1', '1'),
        set('./DevInfo/DevId', 'x'),
      ),
      [200, 400, 405, 405, 404, 404, 405],
    );
    assert.equal(client.value('/3311/0/5850'), true);
    assert.deepEqual(
      await statuses(
        set('./3311/2', '', 'Add'),
        set('./3311/0', '', 'Add'),
        set('./3303/5', '', 'Add'),
        set('./3311/0/5850', '1', 'Add'),
        { name: 'Delete', uri: './3311/2' },
        { name: 'Delete', uri: './3311/2' },
        { name: 'Delete', uri: './3/0/15' },
        { name: 'Delete', uri: './3303/0' },
        { name: 'Copy', uri: './3/0/15', from: './3303/0/5750' },
        { name: 'Copy', uri: './3/0/15', from: './3303' },
        { name: 'Exec', uri: './3/0/0' },
        { name: 'Exec', uri: './3/0' },
        { name: 'Alert', code: 1100, items: ['hello'] },
        { name: 'Get', uri: './3/0/99' },
        { name: 'Get', uri: './3/0/4' },
        { name: 'Get', uri: './3/0/0?prop=ACL' },
        { name: 'Get', uri: './3?list=TNDS' },
      ),
      [200, 418, 405, 418, 200, 404, 405, 405, 200, 405, 405, 405, 406, 404, 405, 406, 406],
    );
    assert.equal(client.value('/3/0/15'), 'hall');
    const [sequence] = await manage(gateway, [
      { name: 'Sequence', operations: [set('./3/0/14', '+01:00'), { name: 'Get', uri: './3/0/14' }] },
    ]);
    assert.deepEqual(
      sequence?.parts?.map(({ status, results }) => [status, results[0]?.data]),
      [
        [200, undefined],
        [200, '+01:00'],
      ],
    );
  });

  // conforms: GW-26
  test('when an Atomic fails, the values that it wrote are written back', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], clients(id));
    const client = site.client(id, gateway);
    await client.start();
    await client.attached;
    await site.gatewayEvents.until('device.attached', { device: id });
    const replace = (uri: string, data: string) => ({ name: 'Replace', uri, data }) as const;
    const atomic = async (...operations: Parameters<Gateway['manage']>[1]) => {
      const [outcome] = await manage(gateway, [{ name: 'Atomic', operations }]);
      return [outcome?.status, ...(outcome?.parts ?? []).map(({ status }) => status)];
    };
    assert.deepEqual(
      await atomic(replace('./3/0/14', '+03:00'), replace('./3/0/15', 'Europe/Berlin')),
      [200, 200, 200],
    );
    assert.deepEqual(
      await atomic(replace('./3/0/14', '+05:00'), replace('./3/0/0', 'Other'), replace('./3/0/15', 'x')),
      [507, 216, 405, 215],
    );
    assert.equal(client.value('/3/0/14'), '+03:00');
    assert.equal(client.value('/3/0/15'), 'Europe/Berlin');
    assert.deepEqual(
      await atomic(replace('./3/0/14', '+05:00'), { name: 'Exec', uri: './3/0/4' }),
      [507, 215, 406],
    );
  });

  // conforms: GW-26, GW-18
  test('an image goes from the Image Inventory to an LwM2M client, which updates from it', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway([], clients(id));
    const client = site.client(id, gateway);
    await client.start();
    await client.attached;
    await site.headendEvents.until('alert.device-attach', { device: id });
    const image = await giveImage(site, headend);
    await site.deviceEvents.until('device.downloaded', { device: id, bytes: image.length });
    const execute = `<Exec><CmdID>1</CmdID><Item><Target><LocURI>./5/0/2</LocURI></Target></Item></Exec>`;
    assert.match(await fanOut(site, headend, 'install', execute), /Done="1"/);
    const version = createHash('sha256').update(image).digest('hex').slice(0, 12);
    await site.deviceEvents.until('device.updated', { version });
    await site.gatewayEvents.until('registration.proven', { device: id, firmware: version });
    const result = await fanOut(site, headend, 'ask', get('./DevDetail/FwV', './5/0/5'));
    assert.ok(result.includes(`<Result URI="./DevDetail/FwV">${version}</Result>`), result);
    assert.ok(result.includes('<Result URI="./5/0/5" Command="1" Format="int">1</Result>'), result);
    assert.equal(
      gateway.devices()[0]?.firmware,
      version,
      'the inventory has the version of the new registration',
    );
    assert.equal(
      site.headendEvents.count('alert.device-attach'),
      1,
      'registering again is not another attachment',
    );
  });

  test('a client downloads from another port than it registered from, also after a restart in the middle; without its ticket nobody does', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-ticket-'));
    t.after(() => rmSync(folder, { recursive: true }));
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const state = { gateway: { id: 'gw-1', state: join(folder, 'state.db') }, ...clients(id) };
    const first = await site.gateway([], state);
    const client = site.client(id, first);
    await client.start();
    await client.attached;
    await site.headendEvents.until('alert.device-attach', { device: id });
    const image = await giveImage(site, headend);
    const uri = new URL(String(client.value('/5/0/1')).replace('coap:', 'http:'));
    assert.ok(String(uri).length < 255, 'it fits into resource 5/0/1');
    await using fetcher = await CoapPeer.open();
    const ask = async (query: string, block: number) => {
      const options = [
        ...uriOptions(uri.pathname.slice(1).split('/'), query.slice(1).split('&')),
        uint(Option.Block2, block * 16 + 6),
      ];
      const request = { code: Code.GET, options, payload: new Uint8Array(), timeout: 5000 };
      const { code, payload } = await fetcher.endpoint.request('127.0.0.1', Number(uri.port), request);
      return { code: codeText(code), payload };
    };
    // In blocks of 1024, as a client with a socket of its own has agreed with the gateway.
    const got: Awaited<ReturnType<typeof ask>>[] = [];
    for (let block = 0; block < 20; block++) got.push(await ask(uri.search, block));
    const stranger = await ask(`?${uri.searchParams.toString().split('&')[0]}`, 0);
    assert.equal(stranger.code, '4.01');
    // Another host that knows the URI: its address may be forged, so it gets no more than three times what it sends.
    await using elsewhere = await CoapPeer.open(undefined, '127.0.0.2');
    const options = [
      ...uriOptions(uri.pathname.slice(1).split('/'), uri.search.slice(1).split('&')),
      uint(Option.Block2, 6),
    ];
    const request = { code: Code.GET, options, payload: new Uint8Array(), timeout: 5000 };
    const small = await elsewhere.endpoint.request('127.0.0.1', Number(uri.port), request);
    assert.equal(codeText(small.code), '2.05');
    assert.ok(small.payload.length <= 256, `${small.payload.length}`);
    await first[Symbol.asyncDispose]();
    await using again = new Site(broker.url);
    await again.gateway([], {
      ...state,
      coap: { port: first.coapPort, leisure: 50, 'insecure-plain-coap': true },
    });
    for (let block = 20; block < 40; block++) got.push(await ask(uri.search, block));
    assert.deepEqual([...new Set(got.map(({ code }) => code))], ['2.05']);
    assert.deepEqual(Buffer.concat(got.map(({ payload }) => payload)), image);
  });

  // conforms: GW-26, GW-19
  test('one FUMO order updates both kinds of devices; orders without a package or with a wrong URL fail', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await mixedFleet(site);
    await headend.stageImage('gw-1', { name: 'fw', version: '2', data: randomBytes(20_000) });
    await site.gatewayEvents.until('image.ready');
    const item = (uri: string, data?: string) =>
      `<Item><Target><LocURI>./FwUpdate/${uri}</LocURI></Target>${data === undefined ? '' : `<Data>${data}</Data>`}</Item>`;
    const exec = (operation: string) => `<Exec><CmdID>9</CmdID>${item(operation)}</Exec>`;
    const url = (operation: string, data: string) =>
      `<Replace><CmdID>8</CmdID>${item(`${operation}/PkgURL`, data)}</Replace>`;
    const version = `<Add><CmdID>1</CmdID>${item('PkgVersion', '2.0')}</Add>`;
    const update = `${version}${url('DownloadAndUpdate', 'gw-image:fw')}${exec('DownloadAndUpdate')}`;
    assert.match(
      await fanOut(site, headend, 'update', update),
      /Total="2" Done="2".*<Group Status="200" Commands="200 200 202" Count="2">/,
    );
    await site.deviceEvents.until('device.updated', { device: id });
    await site.deviceEvents.until('device.updated', { device: other });
    const onClient = { targets: { devices: [id] } };
    assert.match(
      await fanOut(site, headend, 'state', get('./FwUpdate/State', './FwUpdate/PkgVersion'), onClient),
      /State" Format="int">100<.*PkgVersion" Command="1">2.0</,
    );
    // The package was installed, so there is none any more.
    assert.match(await fanOut(site, headend, 'again', exec('Update'), onClient), /Failed="1".*Status="410"/);
    const wrong = `${url('Download', 'http://192.0.2.1/fw')}${exec('Download')}`;
    assert.match(await fanOut(site, headend, 'wrong', wrong, onClient), /Failed="1".*Status="411"/);
    const none = `${url('Download', '')}${exec('Download')}`;
    assert.match(await fanOut(site, headend, 'none', none, onClient), /Commands="200 400"/);
    assert.match(
      await fanOut(site, headend, 'state2', get('./FwUpdate?list=Struct'), onClient),
      /Status="200"/,
    );
    const odd = `${exec('State')}<Delete><CmdID>3</CmdID>${item('PkgVersion')}</Delete>${get('./FwUpdate/Odd')}`;
    assert.match(await fanOut(site, headend, 'odd', odd, onClient), /Commands="405 405 404"/);
  });

  // conforms: GW-26, GW-22
  test('a client behind a child gateway gets a fan-out of the parent, and may move to the parent', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await using below = new Site(broker.url);
    const headend = await site.headend([]);
    const top = await site.gateway(['gw-2'], clients(id));
    const child = await below.gateway(
      [],
      {
        gateway: { id: 'gw-2', state: ':memory:' },
        ...childTables('gw-2', top),
        ...clients(id),
      },
      false,
    );
    await site.headendEvents.until('alert.device-attach', { device: 'gw-2' });
    const client = below.client(id, child);
    await client.start();
    await client.attached;
    await site.gatewayEvents.until('device.attached', { device: id, via: 'gw-2' });
    assert.deepEqual(
      top.devices().map(({ mode, protocol, via }) => [mode, protocol, via]),
      [
        [0, 'OMA-DM', undefined],
        [2, 'LwM2M', 'gw-2'],
      ],
    );
    const nodes = ['./3303/0/5700', './3311/0', './3311/0/5850', './3311/0/5851', './3303/0/5750'] as const;
    const result = await fanOut(site, headend, 'deep', get(...nodes), { targets: { devices: [id] } });
    assert.deepEqual(
      readResult(result)[0]?.parts.map(({ results: [found] }) => [found?.format, found?.data]),
      [
        ['float', '21.5'],
        ['node', '5850/5851'],
        ['bool', 'false'],
        ['int', '40'],
        [undefined, 'hall'],
      ],
    );
    const moved = site.client(id, top);
    await moved.start();
    await moved.attached;
    await site.gatewayEvents.until('device.attached', { device: id, protocol: 'LwM2M' });
    assert.equal(top.devices().find(({ deviceId }) => deviceId === id)?.via, undefined);
  });

  // conforms: GW-26
  test('registrations survive a restart of the gateway', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-adaptation-'));
    try {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const state = { gateway: { id: 'gw-1', state: join(folder, 'state.db') }, ...clients(id) };
      const first = await site.gateway([], state);
      const client = site.client(id, first);
      await client.start();
      await client.attached;
      await site.gatewayEvents.until('device.attached', { device: id });
      const port = first.coapPort;
      await first[Symbol.asyncDispose]();
      await using again = new Site(broker.url);
      const second = await again.gateway([], {
        ...state,
        coap: { port, leisure: 50, 'insecure-plain-coap': true },
      });
      const [outcome] = await manage(second, [{ name: 'Get', uri: './3303/0/5701' }]);
      assert.equal(outcome?.results[0]?.data, 'Cel', 'managed although it was not heard since the restart');
      const shown = { version: '1.1', lifetime: 3600, binding: 'U', queueMode: false };
      const listed = () => second.devices()[0] as { registration?: object; lastSeen: number } | undefined;
      assert.deepEqual(listed()?.registration, shown);
      const before = listed()?.lastSeen ?? 0;
      await client.update();
      assert.ok((listed()?.lastSeen ?? 0) > before, 'an update moves when it was heard last');
      assert.equal(site.deviceEvents.count('device.attach-done'), 1, 'and its registration is good');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  // conforms: GW-26
  test('operations on a client in Queue Mode wait until it is heard', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const folder = mkdtempSync(join(tmpdir(), 'postern-queue-'));
    try {
      const state = { gateway: { id: 'gw-1', state: join(folder, 'state.db') }, ...clients(id) };
      const first = await site.gateway([], state);
      const client = site.client(id, first, { 'queue-mode': true });
      await client.start();
      await client.attached;
      await site.gatewayEvents.until('device.attached', { device: id });
      const [awake] = await manage(first, [{ name: 'Get', uri: './3303/0/5701' }]);
      assert.equal(awake?.status, 200, 'it has just been heard');
      const port = first.coapPort;
      await first[Symbol.asyncDispose]();
      // After a restart the gateway does not know that the client is awake.
      await using again = new Site(broker.url);
      const second = await again.gateway([], {
        ...state,
        coap: { port, leisure: 50, 'insecure-plain-coap': true },
      });
      let isDone = false;
      const waiting = manage(second, [{ name: 'Get', uri: './3303/0/5701' }]).then(([outcome]) => {
        isDone = true;
        return outcome?.status;
      });
      const [early] = await Promise.allSettled([second.manage(id, [{ name: 'Get', uri: './3' }], 50)]);
      assert.equal(early.status, 'rejected', 'an operation with a short timeout fails');
      assert.equal(isDone, false);
      await client.update();
      assert.equal(await waiting, 200);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  // conforms: GW-26
  test('a fan-out without a Timeout waits for a client that sleeps, longer than for others; the deadline ends it', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const folder = mkdtempSync(join(tmpdir(), 'postern-asleep-'));
    try {
      const headend = await site.headend([]);
      const state = { gateway: { id: 'gw-1', state: join(folder, 'state.db') }, ...clients(id) };
      const first = await site.gateway([], state);
      const client = site.client(id, first, { 'queue-mode': true });
      await client.start();
      await client.attached;
      await site.headendEvents.until('alert.device-attach', { device: id });
      const port = first.coapPort;
      await first[Symbol.asyncDispose]();
      // After a restart the gateway does not know that the client is awake.
      await using again = new Site(broker.url);
      const clock = new LeapClock();
      const surroundings = { clock };
      await again.gateway(
        [],
        { ...state, coap: { port, leisure: 50, 'insecure-plain-coap': true } },
        true,
        surroundings,
      );
      const command = get('./3303/0/5701');
      const order = (name: string, more: object) =>
        headend.fanOut('gw-1', { name, command, targets: {}, returnFormat: 0, ...more });
      const patient = await order('patient', {});
      const brief = await order('brief', { timeout: 60 });
      const dead = await order('dead', { deadline: 120 });
      await clock.leap(90_000);
      await site.headendEvents.until('alert.command-fanout', { correlator: brief.correlator });
      await clock.leap(60_000);
      await site.headendEvents.until('alert.command-fanout', { correlator: dead.correlator });
      const result = (name: string) => headend.fanouts().find((each) => each.name === name)?.result ?? '';
      assert.match(result('brief'), /Status="408"/);
      assert.match(result('dead'), /Status="408"/);
      assert.equal(result('patient'), '', 'it waits');
      await client.update();
      await site.headendEvents.until('alert.command-fanout', { correlator: patient.correlator });
      assert.match(result('patient'), />Cel</);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  // conforms: GW-26
  test('clients that are not listed, and a second client with the same name, are refused', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([other], clients(id));
    const stranger = site.client('urn:dev:stranger', gateway);
    await stranger.start();
    await site.gatewayEvents.until('bootstrap.refused', { device: 'urn:dev:stranger' });
    const direct = site.client('urn:dev:stranger:2', gateway, { bootstrap: false });
    await direct.start();
    await site.gatewayEvents.until('registration.refused', { device: 'urn:dev:stranger:2' });
    const client = site.client(id, gateway, { bootstrap: false });
    await client.start();
    await client.attached;
    await site.gatewayEvents.until('device.attached', { device: id, bootstrap: 'manual' });
    const twin = site.client(id, gateway, { bootstrap: false });
    await twin.start();
    await site.gatewayEvents.until('registration.duplicate', { device: id });
    assert.equal(gateway.devices().length, 1);
  });

  test('a trigger for an LwM2M client ends with 406; a client whose record was deleted may register again', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([id]);
    const gateway = await site.gateway([], clients(id));
    const client = site.client(id, gateway);
    await client.start();
    await client.attached;
    await site.headendEvents.until('alert.device-attach', { device: id });
    await headend.trigger('gw-1', { name: 'wake', targets: {}, devices: [id], operations: [], deadline: 60 });
    await site.headendEvents.until('alert.device-trigger');
    const [came] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwEdTrigger/Trigger/wake/Results' }]);
    assert.match(String(came?.results[0]?.data), /Status="406"/);
    // The DM server takes it away: its record is gone, and so is its registration.
    const record = `./GwDeviceInventory/Records/${hashedName(id)}`;
    const [gone] = await headend.manage('gw-1', [{ name: 'Delete', uri: record }]);
    assert.equal(gone?.status, 200);
    await assert.rejects(gateway.manage(id, [{ name: 'Get', uri: './3' }], 1000), { code: 'notFound' });
    const again = site.gatewayEvents.next('device.attached', { device: id });
    await client.update();
    await again;
    assert.equal(gateway.devices().length, 1, 'it is still listed, so it may register again');
  });

  test('a trigger for devices of both kinds goes to those that open sessions; the LwM2M client has a status of its own', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([other]);
    const gateway = await site.gateway([], clients(id));
    const device = site.device(other, gateway, { server: true });
    const client = site.client(id, gateway);
    for (const each of [device, client]) {
      await each.start();
      await each.attached;
      await site.headendEvents.until('alert.device-attach', { device: each.id });
    }
    const ended = site.headendEvents.next('session.ended', { device: other });
    const trigger = (devices: readonly string[], name = 'wake') =>
      headend.trigger('gw-1', {
        name,
        targets: {},
        returnFormat: 2,
        devices,
        operations: [{ name: 'Get', uri: './DevInfo/Man' }],
      });
    const { correlator } = await trigger([id, other, 'urn:dev:unknown']);
    await site.headendEvents.until('alert.device-trigger', { correlator });
    const [{ result } = { result: '' }] = headend.records.results('DeviceTrigger');
    assert.match(result, /Total="3" Done="1" Failed="2"/);
    for (const [status, name] of [
      [406, id],
      [200, other],
      [412, 'urn:dev:unknown'],
    ])
      assert.ok(
        result.includes(`<Group Status="${status}" Commands="" Count="1"><Device ID="${name}"/>`),
        result,
      );
    await ended;
    while (headend.triggered('gw-1', 'wake')?.some(({ status }) => status === 0)) await turn();
    assert.deepEqual(
      headend.triggered('gw-1', 'wake')?.map(({ status }) => status),
      [404, 200, 404],
    );
    // The client alone is not refused either.
    const alone = await trigger([id], 'alone');
    assert.equal(alone.status, 202);
    await site.headendEvents.until('alert.device-trigger', { correlator: alone.correlator });
    const { result: own } = headend.records.result('DeviceTrigger', 'gw-1', 'alone')!;
    assert.match(own, /Total="1" Done="0" Failed="1" Pending="0"><Group Status="406" Commands="" Count="1">/);
    while (headend.triggered('gw-1', 'alone')?.some(({ status }) => status === 0)) await turn();
    assert.deepEqual(headend.triggered('gw-1', 'alone'), [{ device: id, status: 404, operations: [] }]);
  });

  test('LwM2M without security must be allowed explicitly, and a device can be listed for one protocol only', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await assert.rejects(site.gateway([], { lwm2m: { device: [{ id }] } }), {
      code: 'configuration',
      message: /lwm2m\.insecure-no-security/,
    });
    await assert.rejects(
      site.gateway([id], clients(id)),
      { code: 'configuration', message: /not in both/ },
      'the same ID for both protocols',
    );
  });
});
