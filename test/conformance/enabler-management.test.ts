import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Operation } from '../../src/dm/server-session.ts';
import { shownResult } from '../../src/dm/shown-result.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { gatewayOf } from '../journeys/lwm2m-party.ts';
import { type EnablerClient, EnablerPeer } from './enabler-client.ts';

const get = (uri: string): Operation => ({ name: 'Get', uri });
const list = (uri: string): Operation => get(`${uri}?list=StructData`);
const set = (uri: string, data: string, format?: string): Operation => ({
  name: 'Replace',
  uri,
  data,
  ...(format !== undefined && { format }),
});

/** Leaves of the objects of the client, as a list of DM has them. */
const device = [
  ['./3/0/0', 'Open Mobile Alliance'],
  ['./3/0/1', 'Lightweight M2M Client'],
  ['./3/0/2', '345000123'],
  ['./3/0/3', '1.0'],
  ['./3/0/11/0', '0'],
  ['./3/0/16', 'U'],
];
const server = [
  ['./1/0/0', '1'],
  ['./1/0/1', '86400'],
  ['./1/0/2', '1'],
  ['./1/0/3', '10'],
  ['./1/0/5', '86400'],
  ['./1/0/6', 'false'],
  ['./1/0/7', 'U'],
];

describe('enabler tests of device management', { timeout: 120_000 }, () => {
  let served: Awaited<ReturnType<typeof gatewayOf>>;
  let count = 0;

  before(async () => {
    const listed = Array.from({ length: 48 }, (_, at) => ({ id: `ets-${at}` }));
    served = await gatewayOf({
      coap: { port: 0, leisure: 50, 'insecure-plain-coap': true },
      lwm2m: { device: listed, 'insecure-no-security': true },
    });
  });
  after(async () => await served.gateway[Symbol.asyncDispose]());

  /** A client that has registered, answers in a format, takes it in a Write, and has heard nothing yet but that. */
  async function registered(format: number = ContentFormat.LwM2mTlv) {
    const peer = await EnablerPeer.open(`ets-${count++}`, served.gateway.coapPort);
    Object.assign(peer.client, { format, takes: [format] });
    assert.equal(await peer.register('lt=300'), '2.01');
    await served.events.until('device.attached', { device: peer.id });
    peer.client.heard.length = 0;
    return peer;
  }

  const manage = async ({ id }: EnablerPeer, ...operations: readonly Operation[]) =>
    await served.gateway.manage(id, operations, 20_000);

  const statuses = async (peer: EnablerPeer, ...operations: readonly Operation[]) =>
    (await manage(peer, ...operations)).map(({ status }) => status);

  /** The leaves that operations have found, as URI and text. */
  const leaves = async (peer: EnablerPeer, ...operations: readonly Operation[]) =>
    (await manage(peer, ...operations)).flatMap(({ results }) =>
      results
        .filter(({ format }) => format !== 'node')
        .map((result) => [result.uri, shownResult(result).data]),
    );

  const valuesOf = ({ values }: EnablerClient, ...paths: readonly string[]) =>
    paths.map((path) => values.get(path));

  // conforms: ETS-201
  test('int-201: manufacturer, model and serial number are read as plain text', async () => {
    await using peer = await registered(ContentFormat.TextPlain);
    const found = await leaves(peer, ...device.slice(0, 3).map(([uri = '']) => get(uri)));
    assert.deepEqual(found, device.slice(0, 3));
  });

  // conforms: ETS-203, ETS-204
  for (const [number, name, format] of [
    ['203', 'TLV', ContentFormat.LwM2mTlv],
    ['204', 'the JSON of LwM2M 1.0', ContentFormat.LwM2mJson],
  ] as const)
    test(`int-${number}: the object Device is read in ${name}`, async () => {
      await using peer = await registered(format);
      assert.deepEqual(await leaves(peer, list('./3/0')), device);
      assert.deepEqual(peer.client.orders, ['GET /3/0']);
    });

  // conforms: ETS-211
  test('int-211: resources of the object Server are read in CBOR', async () => {
    await using peer = await registered(ContentFormat.Cbor);
    const wanted = ['./1/0/0', './1/0/6', './1/0/7'];
    assert.deepEqual(
      await leaves(peer, ...wanted.map(get)),
      server.filter(([uri = '']) => wanted.includes(uri)),
    );
  });

  /** What the tests of Writes write, and what they restore. */
  const changes = [
    ['./1/0/2', '101'],
    ['./1/0/3', '1010'],
    ['./1/0/5', '2000'],
    ['./1/0/6', 'true'],
    ['./1/0/7', 'U'],
  ] as const;
  const changed = [101, 1010, 2000, true, 'U'];
  const paths = changes.map(([uri]) => uri.slice(1));

  // conforms: ETS-205, ETS-212, ETS-215, ETS-233, ETS-234
  for (const [number, name, format] of [
    ['205', 'plain text', ContentFormat.TextPlain],
    ['212', 'CBOR', ContentFormat.Cbor],
    ['215', 'TLV', ContentFormat.LwM2mTlv],
    ['233', 'SenML CBOR', ContentFormat.SenmlCbor],
    ['234', 'SenML JSON', ContentFormat.SenmlJson],
  ] as const)
    test(`int-${number}: resources are written in ${name}, the format that the client takes, and restored`, async () => {
      await using peer = await registered(format);
      const { client } = peer;
      assert.deepEqual(
        await statuses(peer, ...changes.map(([uri, data]) => set(uri, data))),
        changes.map(() => 200),
      );
      assert.deepEqual(valuesOf(client, ...paths), changed);
      // What the client refuses with 4.15 comes again in another format.
      const last = changes.map(
        ([uri]) => client.heard.findLast(({ what }) => what === `PUT ${uri.slice(1)}`)!,
      );
      assert.deepEqual([...new Set(last.map(({ contentFormat }) => contentFormat))], [format]);
      // The octets that the test specification has for TLV.
      if (format === ContentFormat.LwM2mTlv)
        assert.deepEqual(
          last.map(({ payload }) => Buffer.from(payload).toString('hex')),
          ['c10265', 'c20303f2', 'c20507d0', 'c10601', 'c10755'],
        );
      const restored = server.slice(2).map(([uri = '', data = '']) => set(uri, data));
      await manage(peer, ...restored);
      assert.deepEqual(valuesOf(client, ...paths), [1, 10, 86_400, false, 'U']);
    });

  // conforms: ETS-221
  test('int-221: what a DM server orders on the object Security gets an error', async () => {
    await using peer = await registered();
    peer.client.values.set('/0/0/0', 'coap://127.0.0.1');
    const done = await manage(peer, get('./0/0'), set('./0/0/0', 'coap://192.0.2.1'));
    assert.ok(
      done.every(({ status }) => status >= 400),
      JSON.stringify(done.map(({ status }) => status)),
    );
    assert.equal(peer.client.values.get('/0/0/0'), 'coap://127.0.0.1');
  });

  // conforms: ETS-222
  test('int-222: whole objects are read', async () => {
    await using peer = await registered();
    assert.deepEqual(await leaves(peer, list('./1'), list('./3')), [...server, ...device]);
  });

  // conforms: ETS-223
  test('int-223: object instances are read, each by one request', async () => {
    await using peer = await registered();
    assert.deepEqual(await leaves(peer, list('./1/0'), list('./3/0')), [...server, ...device]);
    assert.deepEqual(peer.client.orders, ['GET /1/0', 'GET /3/0']);
  });

  // conforms: ETS-224
  test('int-224: single resources are read', async () => {
    await using peer = await registered();
    const wanted = ['./1/0/0', './1/0/1', './1/0/6', './1/0/7', './3/0/16'];
    const found = [];
    for (const uri of wanted) found.push(...(await leaves(peer, get(uri))));
    assert.deepEqual(
      found,
      [...server, ...device].filter(([uri = '']) => wanted.includes(uri)),
    );
    assert.deepEqual(
      peer.client.orders,
      wanted.map((uri) => `GET ${uri.slice(1)}`),
    );
  });

  // conforms: ETS-225
  test('int-225: a resource instance is read', async () => {
    await using peer = await registered();
    peer.client.values.set('/3/0/11/1', 5);
    assert.deepEqual(await leaves(peer, get('./3/0/11/1')), [['./3/0/11/1', '5']]);
    assert.deepEqual(await statuses(peer, get('./3/0/11/7')), [404]);
  });

  // conforms: ETS-227
  test('int-227: a resource is replaced, and the client announces its new lifetime', async () => {
    await using peer = await registered();
    assert.deepEqual(await statuses(peer, set('./1/0/1', '63')), [200]);
    assert.deepEqual(peer.client.orders, ['PUT /1/0/1']);
    assert.equal(await peer.update('lt=63'), '2.04');
    assert.deepEqual(await leaves(peer, get('./1/0/1')), [['./1/0/1', '63']]);
  });

  // conforms: ETS-228
  test('int-228: one instance of a resource is written, and the others stay', async () => {
    await using peer = await registered(ContentFormat.SenmlCbor);
    assert.deepEqual(await statuses(peer, set('./16/0/0/1', 'test', 'chr')), [200]);
    assert.equal(peer.client.orders.at(-1), 'POST /16/0', 'a partial update');
    assert.deepEqual(valuesOf(peer.client, '/16/0/0/0', '/16/0/0/1'), ['aa', 'test']);
    assert.deepEqual(await leaves(peer, get('./16/0/0/1')), [['./16/0/0/1', 'test']]);
  });

  // conforms: ETS-231, ETS-232
  for (const [number, name, format] of [
    ['231', 'SenML JSON', ContentFormat.SenmlJson],
    ['232', 'SenML CBOR', ContentFormat.SenmlCbor],
  ] as const)
    test(`int-${number}: an object, an instance, a resource and its instance are read in ${name}`, async () => {
      await using peer = await registered(format);
      const found = await leaves(peer, list('./1'), list('./3/0'), get('./3/0/16'), get('./3/0/11/0'));
      assert.deepEqual(found, [...server, ...device, ['./3/0/16', 'U'], ['./3/0/11/0', '0']]);
    });

  // conforms: ETS-237
  test('int-237: a Read names no format to a client of LwM2M 1.1, and what it chooses is understood', async () => {
    for (const format of [ContentFormat.SenmlJson, ContentFormat.SenmlCbor, ContentFormat.LwM2mTlv]) {
      await using peer = await registered(format);
      assert.deepEqual(await leaves(peer, list('./1'), list('./3')), [...server, ...device]);
      assert.deepEqual(
        peer.client.heard.map(({ accept }) => accept),
        [undefined, undefined],
      );
    }
  });

  // conforms: ETS-256
  test('int-256: a Write of a resource that is read-only gets 405, and its value stays', async () => {
    await using peer = await registered();
    assert.deepEqual(await statuses(peer, set('./1/0/0', '123')), [405]);
    assert.deepEqual(await leaves(peer, get('./1/0/0')), [['./1/0/0', '1']]);
  });

  // conforms: ETS-260
  test('int-260: Discover shows the resources of an instance, with those that can only be executed', async () => {
    await using peer = await registered();
    const [found] = await manage(peer, get('./3/0'));
    assert.equal(found?.results[0]?.data, '0/1/2/3/4/11/16');
    assert.deepEqual(
      peer.client.heard.map(({ what, accept }) => [what, accept]),
      [['GET /3/0', ContentFormat.LinkFormat]],
    );
  });

  // conforms: ETS-270
  test('int-270, int-1630: an object instance is created, and known by the Update that lists it', async () => {
    await using peer = await registered();
    assert.deepEqual(await statuses(peer, { name: 'Add', uri: './16/1', format: 'node' }), [200]);
    assert.deepEqual(peer.client.orders, ['GET /16/1', 'POST /16']);
    assert.equal(peer.client.values.get('/16/1/0/0'), 'new');
    assert.deepEqual(await statuses(peer, { name: 'Add', uri: './16/0', format: 'node' }), [418]);
  });

  // conforms: ETS-290
  test('int-290, int-1635: an object instance is deleted', async () => {
    await using peer = await registered();
    assert.deepEqual(await statuses(peer, { name: 'Delete', uri: './16/0' }), [200]);
    assert.deepEqual(peer.client.orders, ['DELETE /16/0']);
    assert.deepEqual(valuesOf(peer.client, '/16/0/0/0', '/3/0/0'), [undefined, 'Open Mobile Alliance']);
  });
});
