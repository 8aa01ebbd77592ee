import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { gatewayOrder } from '../../src/headend/order-views.ts';
import { MediaType } from '../../src/wire/syncml/codec.ts';
import { startAedes } from '../peers/brokers.ts';
import { StockClient } from '../peers/stock-client.ts';
import { fileServer } from './file-server.ts';
import { lyingServer, says, serves } from './lying-server.ts';
import { Site } from './site.ts';

const limit = { timeout: 60_000 };
const ids = ['urn:dev:ops:1', 'urn:dev:ops:2', 'urn:dev:ops:3'];

describe('journey 5: the gateway downloads an image once and gives it to many devices', limit, () => {
  test('of a download that fails the DM server hears at once, once per cause, until it ends', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    await site.gateway([]);
    const free = await fileServer(Buffer.alloc(0), []);
    const { url } = free;
    await free[Symbol.asyncDispose]();
    const order = { name: 'fw', version: '2', url, hash: '0'.repeat(64) };
    const { correlator } = await headend.stageImage('gw-1', order);
    const { fields } = await site.headendEvents.until('gateway.problem', { gateway: 'gw-1' });
    assert.match(
      String(fields.reason),
      /^image fw does not come: .*ECONNREFUSED.*; tried again within 90 s$/,
    );
    const found = headend.orders.get('ImageOperation', 'gw-1', 'fw');
    assert.ok(found);
    const { state, problem } = gatewayOrder(headend, 'ImageOperation', 'gw-1', 'fw') as {
      state: string;
      problem?: string;
    };
    assert.deepEqual([found.correlator, state, problem], [correlator, 'running', fields.reason]);
    for (let times = site.gatewayEvents.count('image.broke-off'); times < 3; times++)
      await site.gatewayEvents.next('image.broke-off');
    assert.equal(site.headendEvents.count('gateway.problem'), 1);
    await headend.manage('gw-1', [{ name: 'Delete', uri: './GwImageInventory/Images/fw' }]);
    while (headend.gateways()[0]?.problem !== undefined) await site.headendEvents.next('gateway.state');
  });

  // conforms: GW-18, GW-19
  test('a download that breaks off at 99 % is continued; three devices update from the image by one FUMO order', async () => {
    const file = randomBytes(200_000);
    const hash = createHash('sha256').update(file).digest('hex');
    await using files = await fileServer(file, [198_000]);
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway(ids);
    for (const id of ids) {
      const device = site.device(id, gateway, { factory: true });
      await device.start();
      await device.attached;
    }
    await site.headendEvents.until('alert.device-attach', { device: ids[2] });
    const staged = await headend.stageImage('gw-1', { name: 'fw-2', version: '2.0.0', url: files.url, hash });
    assert.equal(staged.status, 202);
    await site.headendEvents.until('alert.image-operation', { correlator: staged.correlator });
    assert.deepEqual(
      headend.records.results('ImageOperation').map(({ name, result }) => [name, result]),
      [['fw-2', '<ImageResult Code="200"/>']],
    );
    assert.deepEqual(files.requests.length, 2);
    assert.match(files.requests[1] ?? '', /^bytes=[1-9]\d+-$/, 'the second request asks for the rest only');
    const at = './GwImageInventory/Images/fw-2';
    const seen = await headend.manage('gw-1', [
      ...['State', 'Size', 'Received', 'Result', 'LocalURL'].map((leaf) => ({
        name: 'Get' as const,
        uri: `${at}/${leaf}`,
      })),
      { name: 'Get', uri: './GwImageInventory?list=Struct' },
    ]);
    assert.deepEqual(
      seen.slice(0, 5).map(({ results }) => results[0]?.data),
      ['2', '200000', '200000', '200', '/img/fw-2'],
    );
    assert.equal(seen[5]?.status, 200);

    const leaf = (uri: string, data: string) =>
      `<Replace><CmdID>1</CmdID><Item><Target><LocURI>${uri}</LocURI></Target><Data>${data}</Data></Item></Replace>`;
    const started = await headend.fanOut('gw-1', {
      name: 'update',
      targets: {},
      returnFormat: 2,
      command: `<Add><CmdID>1</CmdID><Item><Target><LocURI>./FwUpdate/PkgVersion</LocURI></Target><Data>2.0.0</Data></Item></Add>${leaf('./FwUpdate/DownloadAndUpdate/PkgURL', 'gw-image:fw-2')}<Exec><CmdID>3</CmdID><Item><Target><LocURI>./FwUpdate/DownloadAndUpdate</LocURI></Target></Item></Exec>`,
    });
    await site.headendEvents.until('alert.command-fanout', { correlator: started.correlator });
    assert.match(
      headend.fanouts()[0]?.result ?? '',
      /Total="3" Done="3" Failed="0" Pending="0"><Group Status="200" Commands="200 200 202" Count="3">/,
    );
    for (const id of ids) {
      const { fields } = await site.deviceEvents.until('device.updated', { device: id });
      assert.deepEqual([fields.version, fields.bytes], ['2.0.0', file.length]);
    }
    const [version] = await gateway.manage(ids[0] ?? '', [{ name: 'Get', uri: './DevDetail/FwV' }], 10_000);
    assert.equal(version?.results[0]?.data, '2.0.0');
  });

  test('a device that comes over HTTP gets the address of its image by HTTP; the address is for its holder, and as long as the image is there', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const account = {
      'client-name': 'user',
      'client-secret': 'a secret of the client',
      'client-auth': ['md5'],
    };
    const id = 'IMEI:493005100592800';
    const gateway = await site.gateway([], {
      http: {
        port: 0,
        'server-id': 'com.operator.dm',
        device: [{ id, ...account, 'server-secret': 'a secret of the server' }],
      },
    });
    await using client = new StockClient({
      deviceId: id,
      serverId: 'com.operator.dm',
      user: 'user',
      password: 'a secret of the client',
      serverPassword: 'a secret of the server',
      auth: 'md5',
      mediaType: MediaType.Xml,
      url: `${gateway.httpUrl}/dm`,
    });
    assert.equal(await client.session('1'), 200);
    await site.headendEvents.until('alert.device-attach', { device: id });
    const data = randomBytes(300_000);
    await headend.stageImage('gw-1', { name: 'fw', data });
    await headend.fanOut('gw-1', {
      name: 'give',
      targets: {},
      returnFormat: 2,
      command: `<Replace><CmdID>1</CmdID><Item><Target><LocURI>./Site/Name</LocURI></Target><Data>gw-image:fw</Data></Item></Replace>`,
    });
    const reported = site.headendEvents.until('alert.command-fanout', { name: 'give' });
    assert.equal(await client.session('2'), 200);
    await reported;
    const url = (client.nodes.get('./Site/Name') ?? '').replaceAll('&amp;', '&');
    assert.ok(url.startsWith(`${gateway.httpUrl}/img/fw?v=`), url);
    const part = await fetch(url, { headers: { range: 'bytes=100000-' } });
    assert.equal(part.status, 206);
    assert.ok(Buffer.from(await part.arrayBuffer()).equals(data.subarray(100_000)));
    const refused = [
      [url, { method: 'POST' }, 405],
      [url.replace(/&t=.*/, ''), {}, 404],
      [url.replace('/fw?', '/other?'), {}, 404],
      [`${gateway.httpUrl}/img/fw`, {}, 404],
    ] as const;
    for (const [at, init, status] of refused) assert.equal((await fetch(at, init)).status, status, at);
    await headend.manage('gw-1', [{ name: 'Delete', uri: './GwImageInventory/Images/fw' }]);
    assert.equal((await fetch(url)).status, 404);
  });

  // conforms: GW-18
  test('a pushed image is ready and can be removed; one with a wrong digest has result 402', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    await site.gateway([]);
    const data = randomBytes(300_000);
    await headend.stageImage('gw-1', { name: 'pushed', data });
    await headend.stageImage('gw-1', { name: 'wrong', data, hash: 'ab'.repeat(32) });
    const seen = await headend.manage('gw-1', [
      { name: 'Get', uri: './GwImageInventory/Images/pushed/State' },
      { name: 'Get', uri: './GwImageInventory/Images/wrong/State' },
      { name: 'Get', uri: './GwImageInventory/Images/wrong/Result' },
      { name: 'Get', uri: './GwImageInventory/Images/pushed/PkgData' },
      { name: 'Get', uri: './GwImageInventory/Used' },
      { name: 'Exec', uri: './GwImageInventory/Images/pushed/Operations/Remove' },
      { name: 'Get', uri: './GwImageInventory/Images/pushed/State' },
      { name: 'Delete', uri: './GwImageInventory/Images/pushed' },
      { name: 'Get', uri: './GwImageInventory/Used' },
    ]);
    assert.deepEqual(
      seen.map(({ status, results }) => results[0]?.data ?? status),
      ['2', '3', '402', 405, '300000', 200, '0', 200, '0'],
    );
  });

  test('a large image is updated: refused beside the earlier version, with what to do, and then in its place', async () => {
    const [earlier, next] = [randomBytes(700_000), randomBytes(700_000)];
    await using files = await lyingServer(serves(earlier, '"v1"'), serves(next, '"v2"'));
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway([], { images: { quota: 1 } });
    const stage = async (dropEarlier?: boolean) => {
      const request = { name: 'fw', version: '2.0.0', url: files.url, dropEarlier };
      const { correlator } = await headend.stageImage('gw-1', request);
      await site.headendEvents.until('alert.image-operation', { correlator });
      return headend.records.results('ImageOperation').at(-1)?.result;
    };
    assert.equal(await stage(), '<ImageResult Code="200"/>');
    assert.match(
      (await stage()) ?? '',
      /^<ImageResult Code="501"><Reason>\d+ bytes too few are left beside the earlier version; set DropEarlier/,
    );
    assert.equal(gateway.status().images.stored, 1);
    assert.equal(await stage(true), '<ImageResult Code="200"/>');
    assert.deepEqual([gateway.status().images.stored, gateway.status().images.used], [1, next.length]);
  });

  test('an image that is ordered again from a URL that fails: the server hears why, and devices get the one before', async () => {
    const file = randomBytes(50_000);
    const hash = createHash('sha256').update(file).digest('hex');
    await using files = await lyingServer(serves(file, '"v1"'), says(404, {}));
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const [id = ''] = ids;
    const gateway = await site.gateway([id]);
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: id });
    const result = async (wanted: string) => {
      const request = { name: 'fw', version: '2.0.0', url: files.url, hash: wanted };
      const { correlator } = await headend.stageImage('gw-1', request);
      await site.headendEvents.until('alert.image-operation', { correlator });
      return headend.records.results('ImageOperation').at(-1)?.result;
    };
    assert.equal(await result(hash), '<ImageResult Code="200"/>');
    assert.equal(
      await result('ab'.repeat(32)),
      '<ImageResult Code="500"><Reason>the download server answered 404</Reason></ImageResult>',
    );
    const at = './GwImageInventory/Images/fw';
    const seen = await headend.manage(
      'gw-1',
      ['State', 'Result', 'Reason', 'Size'].map((leaf) => ({ name: 'Get' as const, uri: `${at}/${leaf}` })),
    );
    assert.deepEqual(
      seen.map(({ results }) => results[0]?.data),
      ['2', '500', 'the download server answered 404', '50000'],
    );
    assert.equal(gateway.status().images.failed, 1);
    const uri = (leaf: string) => `<LocURI>./FwUpdate/DownloadAndUpdate${leaf}</LocURI>`;
    const command = `<Replace><CmdID>1</CmdID><Item><Target>${uri('/PkgURL')}</Target><Data>gw-image:fw</Data></Item></Replace><Exec><CmdID>2</CmdID><Item><Target>${uri('')}</Target></Item></Exec>`;
    await headend.fanOut('gw-1', { name: 'update', targets: {}, returnFormat: 0, command });
    const { fields } = await site.deviceEvents.until('device.updated', { device: id });
    assert.equal(fields.bytes, file.length);
  });
});
