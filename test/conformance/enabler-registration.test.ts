import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Operation } from '../../src/dm/server-session.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { reply } from '../../src/wire/coap/message.ts';
import { decodeContent } from '../../src/wire/lwm2m/content.ts';
import { parsePath, pathText } from '../../src/wire/lwm2m/path.ts';
import { adaptedRig, get } from '../gateway/modes/adapted-rig.ts';
import { factory, gatewayOf, id as keyed, Party, secure } from '../journeys/lwm2m-party.ts';
import { EnablerClient, EnablerPeer, shownOf } from './enabler-client.ts';

type Served = Awaited<ReturnType<typeof gatewayOf>>;

const exec = (uri: string): Operation => ({ name: 'Exec', uri });
const lifetime = (seconds: number): Operation => ({ name: 'Replace', uri: './1/0/1', data: `${seconds}` });

/** What a Bootstrap-Discover shows of a client with the account of its bootstrap server, by Security instance 1. */
const ownOnly = '</>;lwm2m=1.1,</0/1>,</3/0>';

/** The values of all Writes that the client has heard, by path. */
function written(client: EnablerClient): Readonly<Record<string, unknown>> {
  const values = client.heard.flatMap(({ what, contentFormat, payload }) => {
    const [method, path = ''] = what.split(' ');
    return method === 'PUT' ? decodeContent(contentFormat, payload, parsePath(path)) : [];
  });
  return Object.fromEntries(values.map(({ path, value }) => [pathText(path), value]));
}

/** Has the client answer a bootstrap: Bootstrap-Discover with these links, and each change with a success. */
function takeBootstrap(client: EnablerClient, links: string, finish: number = Code.Changed): void {
  client.instead = ({ method }, what) => {
    if (what === 'GET /')
      return reply(Code.Content, { payload: links, contentFormat: ContentFormat.LinkFormat });
    if (what === 'POST /bs') return reply(finish);
    if (method === Code.DELETE) return reply(Code.Deleted);
    return method === Code.PUT ? reply(Code.Changed) : undefined;
  };
}

describe('enabler tests of bootstrap and registration', { timeout: 120_000 }, () => {
  let served: Served;
  let count = 0;

  before(async () => {
    const device = Array.from({ length: 32 }, (_, at) => ({ id: `ets-${at}` }));
    const lwm2m = { device, 'insecure-no-security': true };
    served = await gatewayOf({ coap: { port: 0, leisure: 50, 'insecure-plain-coap': true }, lwm2m });
  });
  after(async () => await served.gateway[Symbol.asyncDispose]());

  const open = async () => await EnablerPeer.open(`ets-${count++}`, served.gateway.coapPort);

  /** A client that has registered and has been asked what it is. */
  async function registered(...query: readonly string[]) {
    const peer = await open();
    assert.equal(await peer.register(...query), '2.01');
    await served.events.until('device.attached', { device: peer.id });
    return peer;
  }

  const order = async ({ id }: EnablerPeer, ...operations: readonly Operation[]) =>
    (await served.gateway.manage(id, operations, 20_000)).map(({ status }) => status);

  // conforms: ETS-0
  test('int-0: a client asks for a bootstrap and gets an account, and a Finish', async () => {
    await using peer = await open();
    const { client, id } = peer;
    takeBootstrap(client, ownOnly);
    assert.equal(await peer.bootstrap(), '2.04');
    await served.events.until('lwm2m.bootstrapped', { device: id });
    assert.deepEqual(client.orders, ['GET /', 'PUT /0/0', 'PUT /1/0', 'POST /bs']);
    assert.equal(client.heard[0]?.accept, ContentFormat.LinkFormat);
    const {
      '/0/0/0': uri,
      '/0/0/1': isBootstrap,
      '/0/0/2': mode,
      '/0/0/10': server,
      ...more
    } = written(client);
    assert.deepEqual(
      [uri, isBootstrap, mode, server],
      [`coap://127.0.0.1:${served.gateway.coapPort}`, false, 3, more['/1/0/0']],
    );
    assert.ok(Number(more['/1/0/1']) > 0 && more['/1/0/7'] === 'U' && typeof more['/1/0/6'] === 'boolean');
    client.instead = () => undefined;
    assert.equal(await peer.register(), '2.01', 'with the account it registers');
  });

  // conforms: ETS-4
  test('int-4: a bootstrap deletes the account of another server, and not that of the bootstrap server', async () => {
    await using peer = await open();
    const { client, id } = peer;
    takeBootstrap(client, `</0/0>;ssid=7,</0/1>,</1/3>;ssid=7,</2/0>,</3/0>,</16/0>`);
    assert.equal(await peer.bootstrap(), '2.04');
    await served.events.until('lwm2m.bootstrapped', { device: id });
    assert.deepEqual(
      client.orders.filter((what) => what.startsWith('DELETE')),
      ['DELETE /0/0', 'DELETE /1/3', 'DELETE /2/0'],
    );
    assert.deepEqual(
      client.orders.filter((what) => what.startsWith('PUT')),
      ['PUT /0/0', 'PUT /1/0'],
    );
  });

  // conforms: ETS-5
  test('int-5: an Exec of the Bootstrap-Request Trigger has a client ask for its bootstrap', async () => {
    await using peer = await registered();
    assert.deepEqual(await order(peer, exec('./1/0/9')), [200]);
    assert.equal(peer.client.orders.at(-1), 'POST /1/0/9');
    takeBootstrap(peer.client, ownOnly);
    assert.equal(await peer.bootstrap(), '2.04', 'also of a client that is registered');
    await peer.client.until('POST /bs');
    await served.events.until('lwm2m.bootstrapped', { device: peer.id });
  });

  // conforms: ETS-9
  test('int-9: a bootstrap whose Finish is answered with 4.06 has failed', async () => {
    await using peer = await open();
    takeBootstrap(peer.client, ownOnly, Code.NotAcceptable);
    assert.equal(await peer.bootstrap(), '2.04');
    const { fields } = await served.events.until('lwm2m.bootstrap-failed', { device: peer.id });
    assert.match(String(fields.reason), /Finish.*4\.06/);
    assert.ok(
      !served.events.all.some(
        ({ name, fields: { device } }) => name === 'lwm2m.bootstrapped' && device === peer.id,
      ),
    );
  });

  // conforms: ETS-101
  test('int-101: a registration gets 2.01 with its path, and its parameters are shown', async () => {
    await using peer = await registered('lt=300', 'b=U');
    assert.deepEqual([peer.location.length, peer.location[0]], [2, 'rd']);
    assert.deepEqual(shownOf(served.gateway, peer.id), {
      version: '1.1',
      lifetime: 300,
      binding: 'U',
      queueMode: false,
    });
    const record = served.gateway.devices().find(({ deviceId }) => deviceId === peer.id);
    assert.equal((record as { objects?: string } | undefined)?.objects, '/1/0 /3/0 /16/0');
  });

  // conforms: ETS-102
  test('int-102: a written lifetime comes back in an Update, and an Update without parameters keeps it', async () => {
    await using peer = await registered('lt=300');
    assert.deepEqual(await order(peer, lifetime(20)), [200]);
    assert.equal(peer.client.values.get('/1/0/1'), 20);
    assert.equal(await peer.update('lt=20'), '2.04');
    assert.equal(await peer.update(), '2.04');
    assert.equal((shownOf(served.gateway, peer.id) as { lifetime: number }).lifetime, 20);
  });

  // conforms: ETS-103
  test('int-103: after Disable and a Deregister, answered with 2.02, the client is gone', async () => {
    await using peer = await registered();
    assert.deepEqual(await order(peer, exec('./1/0/4')), [200]);
    assert.equal(peer.client.orders.at(-1), 'POST /1/0/4');
    assert.equal(await peer.deregister(), '2.02');
    assert.ok(!served.gateway.devices().some(({ deviceId }) => deviceId === peer.id));
    await assert.rejects(served.gateway.manage(peer.id, [exec('./1/0/8')], 1000), { code: 'notFound' });
  });

  // conforms: ETS-104
  test('int-104: an Exec of the Registration Update Trigger, and the Update that follows it', async () => {
    await using peer = await registered('lt=20');
    const { triggers } = peer.client;
    assert.deepEqual(await order(peer, exec('./1/0/8')), [200]);
    assert.ok(peer.client.triggers > triggers);
    const seen = () => served.gateway.devices().find(({ deviceId }) => deviceId === peer.id)?.lastSeen ?? 0;
    const before = seen();
    assert.equal(await peer.update(), '2.04');
    assert.ok(seen() > before);
  });

  // conforms: ETS-105
  test('int-105: an Update of a client that is registered no more gets 4.04, and it registers again', async () => {
    await using peer = await registered('lt=60');
    assert.equal(await peer.update(), '2.04');
    assert.equal(await peer.deregister(), '2.02');
    assert.equal(await peer.update(), '4.04');
    assert.equal(await peer.register('lt=60'), '2.01');
    await served.events.next('device.attached', { device: peer.id });
    assert.equal(await peer.update(), '2.04');
  });

  // conforms: ETS-107
  test('int-107: a longer lifetime is written, announced in an Update, and counts', async () => {
    await using peer = await registered('b=U', 'lt=60');
    assert.deepEqual(await order(peer, lifetime(120)), [200]);
    assert.equal(await peer.update('lt=120'), '2.04');
    assert.equal((shownOf(served.gateway, peer.id) as { lifetime: number }).lifetime, 120);
  });

  // conforms: ETS-108
  test('int-108: a client that registers with Q is in Queue Mode', async () => {
    await using peer = await registered('b=U', 'Q');
    assert.equal((shownOf(served.gateway, peer.id) as { queueMode: boolean }).queueMode, true);
  });

  // conforms: ETS-109
  test('int-109: a Read for a client in Queue Mode waits until its Update, and nothing is sent before', async () => {
    const client = new EnablerClient();
    await using rig = await adaptedRig(client.answer, { queueMode: true, lifetime: 240 });
    rig.wake();
    rig.start('awake', get('./1/0/1'));
    await rig.until(() => rig.results.length === 1);
    assert.match(rig.results[0] ?? '', /86400/);
    await rig.until(() => false, 120);
    const before = client.heard.length;
    rig.start('asleep', get('./1/0/1'));
    await rig.until(() => false, 120);
    assert.deepEqual([client.heard.length, rig.results.length], [before, 1]);
    rig.wake();
    await rig.until(() => rig.results.length === 2);
    assert.deepEqual(client.orders.slice(before), ['GET /1/0/1']);
  });

  // conforms: ETS-241
  test('int-241: a client that was ordered to reboot registers again, and its former registration is over', async () => {
    await using peer = await registered();
    assert.deepEqual(await order(peer, exec('./3/0/4')), [200]);
    assert.equal(peer.client.orders.at(-1), 'POST /3/0/4');
    const former = peer.location;
    const proven = served.events.next('registration.proven', { device: peer.id });
    assert.equal(await peer.register(), '2.01');
    await proven;
    assert.notDeepEqual(peer.location, former);
    assert.equal(await peer.send(Code.POST, former), '4.04');
    assert.equal(await peer.update(), '2.04');
  });
});

describe('enabler tests over DTLS', { timeout: 120_000 }, () => {
  // conforms: ETS-1, ETS-401
  test('int-1, int-401: a client with a pre-shared key is bootstrapped to another one, by which it registers and is read', async () => {
    const { gateway, events, port } = await gatewayOf({ lwm2m: secure.lwm2m });
    await using _gateway = gateway;
    const client = new EnablerClient();
    takeBootstrap(client, ownOnly);
    {
      await using first = await Party.open(port, factory);
      first.end.handler = client.answer;
      assert.equal((await first.ask(Code.POST, '/bs', [`ep=${keyed}`])).code, '2.04');
      await events.until('lwm2m.bootstrapped', { device: keyed });
    }
    const { '/0/0/0': uri, '/0/0/2': mode, '/0/0/3': identity, '/0/0/5': key } = written(client);
    assert.deepEqual([uri, mode], [`coaps://127.0.0.1:${port}`, 0]);
    client.instead = () => undefined;
    await using second = await Party.open(port, {
      identity: `${Buffer.from(identity as Uint8Array)}`,
      key: key as Uint8Array,
    });
    second.end.handler = client.answer;
    assert.equal(await second.register(keyed), '2.01');
    await events.until('device.attached', { device: keyed });
    const [found] = await gateway.manage(keyed, [{ name: 'Get', uri: './3/0/0' }], 20_000);
    assert.deepEqual([found?.status, found?.results[0]?.data], [200, 'Open Mobile Alliance']);
  });
});
