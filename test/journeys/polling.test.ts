import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAccount } from '../../src/mo/dm-acc.ts';
import { MediaType } from '../../src/wire/syncml/codec.ts';
import { decodeTnds } from '../../src/wire/syncml/tnds.ts';
import { asker, startApi } from '../headend/api-client.ts';
import { startAedes } from '../peers/brokers.ts';
import { StockClient, type StockClientOptions } from '../peers/stock-client.ts';
import { Site, secrets } from './site.ts';

const limit = { timeout: 60_000 };
const id = 'IMEI:493005100592800';
/** A client that comes over HTTP when it likes, with an account for the DM server. */
const poller = (url: string, more: Partial<StockClientOptions> = {}) =>
  new StockClient({
    deviceId: id,
    serverId: 'dm.example',
    user: id,
    password: secrets.deviceClient(id),
    serverPassword: secrets.deviceServer(id),
    auth: 'md5',
    mediaType: MediaType.Xml,
    url,
    ...more,
  });
const operations = [
  { name: 'Replace', uri: './Site/Name', data: 'south' },
  { name: 'Get', uri: './Site/Name' },
];

interface Order {
  readonly correlator: string;
  readonly state: string;
  readonly reason?: string;
  readonly due?: string;
  readonly operations?: readonly { readonly status: number }[];
}

// conforms: NOT-1
test(
  'what the API wants of a client that polls over HTTP waits until it comes through the tunnel',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([id], { policy: { 'assisted-bootstrap': false } });
    await using api = await startApi(headend);
    const ask = asker(api.url);
    const order = async (correlator: string) =>
      (await ask('GET', `/orders/${correlator}`)).body as unknown as Order;
    const gateway = await site.gateway([], { http: { port: 0 } });
    await using client = poller(`${gateway.httpUrl}/dm/t/dm.example`);
    const early = await ask('POST', `/devices/${id}/sessions`, { operations });
    assert.equal(early.status, 202, 'not even its gateway is known');
    assert.equal(await client.session('1'), 200);
    assert.equal(client.nodes.get('./Site/Name'), 'south');
    assert.equal((await order((early.body as unknown as Order).correlator)).state, 'done');
    client.nodes.set('./Site/Name', 'north');
    const answer = await ask('POST', `/devices/${id}/sessions`, { operations });
    const { correlator, state, reason, due } = answer.body as unknown as Order;
    assert.deepEqual([answer.status, state], [202, 'sending']);
    assert.match(reason ?? '', /^waits until the device comes by itself: .*comes over HTTP/);
    assert.ok(Date.parse(due ?? '') > 0);
    assert.equal(await client.session('2'), 200);
    assert.equal(client.nodes.get('./Site/Name'), 'south');
    const done = await order(correlator);
    assert.deepEqual([done.state, done.reason], ['done', undefined]);
    assert.deepEqual(
      done.operations?.map(({ status }) => status),
      [200, 200],
    );
  },
);

// conforms: GW-2
test(
  'a client that came through the tunnel over HTTP is bootstrapped to the gateway with an HTTP address',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([id]);
    const gateway = await site.gateway([], {
      coap: { port: 0, leisure: 50 },
      // An account for DTLS would be of no use to it.
      coaps: { port: 0 },
      http: { port: 0, path: '/sync', 'server-id': 'com.operator.dm' },
    });
    await using client = poller(`${gateway.httpUrl}/dm/t/dm.example`);
    assert.equal(await client.session('1'), 200);
    const document = client.nodes.get('./Inbox') ?? '';
    const unescaped = document.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&quot;', '"');
    const account = readAccount(decodeTnds(unescaped.replaceAll('&amp;', '&')).root);
    assert.equal(account.address, `${gateway.httpUrl}/sync`);
    assert.deepEqual([account.serverId, account.transport], ['gw-1', undefined]);
    await using own = poller(account.address, {
      serverId: account.serverId,
      password: account.own.secret,
      serverPassword: account.peer.secret,
    });
    const managed = gateway.manage(id, [{ name: 'Get', uri: './Site/Name' }], 20_000);
    assert.equal(await own.session('2'), 200);
    assert.equal((await managed)[0]?.status, 200);
    const [record] = gateway.devices();
    assert.equal(record?.origin, 'server');
    await site.headendEvents.until('alert.device-attach', { device: id, bootstrap: 'server' });
  },
);
