import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Operation } from '../../src/dm/server-session.ts';
import { shownResult } from '../../src/dm/shown-result.ts';
import type { ObservationWish } from '../../src/gateway/southbound/observer.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { gatewayOf } from '../journeys/lwm2m-party.ts';
import { EnablerPeer } from './enabler-client.ts';
import { EnablerReports } from './enabler-reports.ts';

const get = (uri: string): Operation => ({ name: 'Get', uri });
const set = (uri: string, data: string, format?: string) =>
  ({ name: 'Replace', uri, data, ...(format !== undefined && { format }) }) as const;
const wishOf = (
  name: string,
  paths: readonly string[],
  attributes: ObservationWish['attributes'] = {},
): ObservationWish => ({ name, paths, attributes });

/** Values by path, and the name of the observation that they came by. */
type Told = readonly [name: string | undefined, values: Readonly<Record<string, unknown>>];

const voltage = '/3/0/7';
const current = '/3/0/8';
/** Power sources of the client, as configuration 3 has them. */
const power = {
  '/3/0/6/0': 1,
  '/3/0/6/1': 5,
  '/3/0/7/0': 3800,
  '/3/0/7/1': 5000,
  '/3/0/8/0': 125,
  '/3/0/8/1': 900,
};
const portfolio = (instance: number, ...identities: readonly string[]) =>
  Object.fromEntries(identities.map((identity, at) => [`/16/${instance}/0/${at}`, identity]));
const composite = ['/1/0/1', '/3/0/11/0', '/3/0/16'];
const held = { '/1/0/1': 86_400, '/3/0/11/0': 0, '/3/0/16': 'U' };

describe('enabler tests of reporting and of composite operations', { timeout: 120_000 }, () => {
  let served: Awaited<ReturnType<typeof gatewayOf>>;
  let count = 0;
  const told = new Map<string, Told[]>();
  let came = Promise.withResolvers<void>();

  before(async () => {
    const listed = Array.from({ length: 32 }, (_, at) => ({ id: `ets-${at}` }));
    served = await gatewayOf({
      coap: { port: 0, leisure: 50, 'insecure-plain-coap': true },
      lwm2m: { device: listed, 'insecure-no-security': true },
    });
    served.parts.signals.add({
      valued: (device, name, values) => {
        const found = Object.fromEntries(values.map(({ path, value }) => [path, value]));
        told.set(device, [...(told.get(device) ?? []), [name, found]]);
        came.resolve();
      },
    });
  });
  after(async () => await served.gateway[Symbol.asyncDispose]());

  /** A client that has registered and can be observed, with values besides those of its configuration. */
  async function registered(values: Readonly<Record<string, string | number>> = {}) {
    const peer = await EnablerPeer.open(`ets-${count++}`, served.gateway.coapPort);
    const { client } = peer;
    client.format = ContentFormat.SenmlCbor;
    client.takes = [ContentFormat.SenmlCbor];
    for (const [path, value] of Object.entries(values)) client.values.set(path, value);
    const reports = new EnablerReports(peer);
    assert.equal(await peer.register('lt=300'), '2.01');
    await served.events.until('device.attached', { device: peer.id });
    client.heard.length = 0;
    return { peer, client, reports, [Symbol.asyncDispose]: () => peer[Symbol.asyncDispose]() };
  }

  const wish = ({ id }: EnablerPeer, ...wishes: readonly ObservationWish[]) =>
    served.parts.lwm2m!.observer.wish(id, wishes);
  const stateOf = ({ id }: EnablerPeer, name: string) => served.parts.lwm2m!.observer.stateOf(id, name);

  /** The next values that the gateway takes from a client. */
  async function next({ id }: EnablerPeer): Promise<Told> {
    for (;;) {
      const values = told.get(id)?.shift();
      if (values) return values;
      came = Promise.withResolvers();
      await came.promise;
    }
  }

  const manage = async ({ id }: EnablerPeer, ...operations: readonly Operation[]) =>
    await served.gateway.manage(id, operations, 20_000);
  const statuses = async (peer: EnablerPeer, ...operations: readonly Operation[]) =>
    (await manage(peer, ...operations)).map(({ status }) => status);
  /** Resolves when the gateway has what the client has sent until now: datagrams keep their order here. */
  const settled = async (peer: EnablerPeer) => {
    await manage(peer, get('./3/0/16'));
  };

  /** The leaves that operations have found, as URI and text. */
  const leaves = async (peer: EnablerPeer, ...operations: readonly Operation[]) =>
    (await manage(peer, ...operations)).flatMap(({ results }) =>
      results
        .filter(({ format }) => format !== 'node')
        .map((result) => [result.uri, shownResult(result).data]),
    );

  // conforms: ETS-229, ETS-280
  for (const [number, format] of [
    ['229', ContentFormat.SenmlCbor],
    ['280', ContentFormat.SenmlJson],
  ] as const)
    test(`int-${number}: several Gets of leaves, of resource instances too, are one Read-Composite`, async () => {
      await using made = await registered({ '/16/0/0/2': 'cc' });
      const { peer, client, reports } = made;
      reports.format = format;
      const wanted = ['/3/0/0', '/3/0/16', '/1/0/1', '/1/0/6', '/3/0/11/0', '/16/0/0/2'];
      const found = await leaves(peer, ...wanted.map((path) => get(`.${path}`)));
      assert.deepEqual(
        found,
        wanted.map((path) => [`.${path}`, String(client.values.get(path))]),
      );
      assert.deepEqual(client.orders, [`FETCH ${wanted.join(' ')}`]);
      const [{ accept, contentFormat } = {}] = client.heard;
      assert.deepEqual([accept, contentFormat], [ContentFormat.SenmlCbor, ContentFormat.SenmlCbor]);
      // A resource of several instances shows them.
      assert.deepEqual((await manage(peer, get('./16/0/0'), get('./1/0/0')))[0]?.results, [
        { uri: './16/0/0', format: 'node', data: '0/1/2' },
      ]);
    });

  // conforms: ETS-235
  test('int-235: a list of all data is one Read-Composite of the root', async () => {
    await using made = await registered();
    const { peer, client } = made;
    client.values.set('/0/0/0', 'coap://127.0.0.1');
    const found = new Map((await leaves(peer, get('.?list=StructData'))).map(([uri, data]) => [uri, data]));
    assert.deepEqual(client.orders, ['FETCH /']);
    for (const [path, value] of client.values)
      assert.equal(found.get(`.${path}`), path.startsWith('/0') ? undefined : String(value), path);
    assert.equal(found.get('./DevInfo/Man'), client.values.get('/3/0/0'));
    assert.equal(found.get('./DevDetail/FwV'), client.values.get('/3/0/3'));
    assert.equal(found.has('./DevDetail/HwV'), false);
    client.heard.length = 0;
    await leaves(peer, get('./DevDetail?list=StructData'));
    assert.deepEqual(client.orders.slice(0, 1), ['FETCH /3/0/17 /3/0/3 /3/0/19 /3/0/18']);
  });

  // conforms: ETS-236, ETS-281
  for (const [number, missing, status] of [
    ['236', './3/0/9', 404],
    // It may not be read.
    ['281', './0/0/0', 401],
  ] as const)
    test(`int-${number}: what the client leaves out of a Read-Composite is asked by itself, and has a status of its own`, async () => {
      await using made = await registered();
      const { peer, client } = made;
      client.values.set('/0/0/0', 'coap://127.0.0.1');
      const wanted = ['./3/0/0', missing, './1/0/1'];
      const found = await manage(peer, ...wanted.map(get));
      assert.deepEqual(
        found.map((each) => each.status),
        [200, status, 200],
      );
      assert.deepEqual(client.orders, [`FETCH /3/0/0 ${missing.slice(1)} /1/0/1`, `GET ${missing.slice(1)}`]);
    });

  // conforms: ETS-230, ETS-257
  for (const [number, changes] of [
    [
      '230',
      [
        ['/1/0/1', '60', undefined, 60],
        ['/1/0/6', 'true', undefined, true],
        ['/16/0/0/0', 'a1', 'chr', 'a1'],
        ['/16/0/0/1', 'b2', 'chr', 'b2'],
        ['/16/0/0/2', 'c3', 'chr', 'c3'],
        ['/16/0/0/3', 'd4', 'chr', 'd4'],
      ],
    ],
    [
      '257',
      [
        ['/1/0/2', '102', undefined, 102],
        ['/1/0/6', 'true', undefined, true],
        ['/3/0/13', '1700000000', undefined, 1_700_000_000],
      ],
    ],
  ] as const)
    test(`int-${number}: an Atomic of Replaces in two objects is one Write-Composite, which is done whole or not at all`, async () => {
      await using made = await registered();
      const { peer, client } = made;
      const before = new Map(client.values);
      const operations = changes.map(([path, data, format]) => set(`.${path}`, data, format));
      const refused = set('./1/0/0', '7');
      const [failed] = await manage(peer, { name: 'Atomic', operations: [...operations, refused] });
      assert.equal(failed?.status, 507);
      // The client refuses it whole; then the gateway asks for each value, to say which one is refused, and undoes what was done.
      assert.equal(client.orders[0], 'iPATCH /');
      assert.deepEqual(client.values, before);
      client.heard.length = 0;

      assert.deepEqual(await statuses(peer, { name: 'Atomic', operations }), [200]);
      assert.deepEqual(client.orders, ['iPATCH /']);
      assert.equal(client.heard[0]?.contentFormat, ContentFormat.SenmlCbor);
      for (const [path, , , value] of changes) assert.equal(client.values.get(path), value, path);
    });

  // conforms: ETS-261
  test('int-261: attributes are written at an object, an instance, a resource and its instance, and taken away; Discover understands them', async () => {
    await using made = await registered(power);
    const { peer, client } = made;
    const wishes = (instance: ObservationWish['attributes']) => [
      wishOf('object', ['/3'], { pmin: 10, pmax: 200 }),
      wishOf('instance', ['/3/0'], instance),
      wishOf('resource', [voltage], { gt: 6, lt: 1, st: 1 }),
      wishOf('resource instance', ['/3/0/11/0'], { pmax: 100 }),
    ];
    wish(peer, ...wishes({ pmax: 320 }));
    await client.until('GET /3/0/11/0 observe');
    const written = () => client.orders.filter((what) => what.startsWith('PUT'));
    assert.deepEqual(written(), [
      'PUT /3?pmin=10&pmax=200',
      'PUT /3/0?pmax=320',
      'PUT /3/0/7?gt=6&lt=1&st=1',
      'PUT /3/0/11/0?pmax=100',
    ]);
    const conditions = (path: string) => Object.fromEntries(client.conditions.get(path)!);
    assert.deepEqual(conditions(voltage), { gt: '6', lt: '1', st: '1' });
    const [found] = await manage(peer, get('./3/0'));
    assert.equal(found?.results[0]?.data, '0/1/2/3/4/6/7/8/11/16');

    client.heard.length = 0;
    wish(peer, ...wishes({}));
    await client.until('GET /3/0 observe');
    assert.deepEqual(written(), ['PUT /3/0?pmax']);
    assert.deepEqual(['/3', '/3/0', '/3/0/11/0'].map(conditions), [
      { pmin: '10', pmax: '200' },
      {},
      { pmax: '100' },
    ]);
  });

  // conforms: ETS-301
  test('int-301: two resources are observed with their conditions, and every notification is taken', async () => {
    await using made = await registered(power);
    const { peer, client, reports } = made;
    const sources = await manage(peer, get('./3/0/6/0'), get('./3/0/6/1'));
    assert.deepEqual(
      sources.map(({ results }) => results[0]?.data),
      ['1', '5'],
    );
    client.heard.length = 0;
    wish(
      peer,
      wishOf('voltage', [voltage], { pmin: 5, pmax: 15 }),
      wishOf('current', [current], { pmin: 10, pmax: 20 }),
    );
    assert.deepEqual(await next(peer), ['voltage', { '/3/0/7/0': 3800, '/3/0/7/1': 5000 }]);
    assert.deepEqual(await next(peer), ['current', { '/3/0/8/0': 125, '/3/0/8/1': 900 }]);
    assert.deepEqual(client.orders, [
      'PUT /3/0/7?pmin=5&pmax=15',
      'GET /3/0/7 observe',
      'PUT /3/0/8?pmin=10&pmax=20',
      'GET /3/0/8 observe',
    ]);
    for (const [format, millivolts] of [
      [ContentFormat.SenmlCbor, 3000],
      [ContentFormat.SenmlJson, 3500],
      [ContentFormat.LwM2mTlv, 3600],
      // A notification by pmax has what the one before had.
      [ContentFormat.LwM2mTlv, 3600],
    ] as const) {
      reports.format = format;
      client.values.set('/3/0/7/0', millivolts);
      assert.equal(await reports.notify(voltage), 'acknowledged');
      assert.deepEqual(await next(peer), ['voltage', { '/3/0/7/0': millivolts, '/3/0/7/1': 5000 }]);
    }
    assert.equal(await reports.notify(current), 'acknowledged');
    assert.deepEqual(await next(peer), ['current', { '/3/0/8/0': 125, '/3/0/8/1': 900 }]);
  });

  // conforms: ETS-302, ETS-303
  for (const [number, how, keeps, delivered] of [
    ['302', 'a Reset to the next notification, where the client does not end it', true, 'reset'],
    ['303', 'a request with Observe 1', false, undefined],
  ] as const)
    test(`int-${number}: an observation ends by ${how}; the other one goes on`, async () => {
      await using made = await registered(power);
      const { peer, client, reports } = made;
      const both = [wishOf('voltage', [voltage]), wishOf('current', [current])] as const;
      wish(peer, ...both);
      for (let each = 0; each < both.length; each++) await next(peer);
      assert.deepEqual(reports.observed, [voltage, current]);
      reports.keeps = keeps;
      for (const [path, ...rest] of [[voltage, both[1]], [current]] as const) {
        wish(peer, ...rest);
        await client.until(`GET ${path} cancel`);
        await settled(peer);
        if (delivered) assert.equal(await reports.notify(path), delivered);
        assert.deepEqual(
          reports.observed,
          rest.flatMap(({ paths }) => paths),
        );
        if (rest.length === 0) continue;
        client.values.set('/3/0/8/0', 100);
        assert.equal(await reports.notify(current), 'acknowledged');
        assert.deepEqual(await next(peer), ['current', { '/3/0/8/0': 100, '/3/0/8/1': 900 }]);
      }
    });

  // conforms: ETS-304
  test('int-304: values of several objects are observed by one request, and come together, each time', async () => {
    await using made = await registered();
    const { peer, client, reports } = made;
    wish(peer, wishOf('all', composite, { pmin: 30, pmax: 45 }));
    assert.deepEqual(await next(peer), ['all', held]);
    assert.deepEqual(client.orders, [
      ...composite.map((path) => `PUT ${path}?pmin=30&pmax=45`),
      `FETCH ${composite.join(' ')} observe`,
    ]);
    assert.equal(await reports.notify(...composite), 'acknowledged');
    assert.deepEqual(await next(peer), ['all', held]);
  });

  // conforms: ETS-305
  test('int-305: an observation of several values ends by the same request with Observe 1', async () => {
    await using made = await registered();
    const { peer, client, reports } = made;
    wish(peer, wishOf('all', composite));
    await next(peer);
    wish(peer);
    await client.until(`FETCH ${composite.join(' ')} cancel`);
    assert.deepEqual([reports.observed, stateOf(peer, 'all')], [[], undefined]);
  });

  // conforms: ETS-306
  test('int-306: a client sends the objects Server and Device unasked, in both formats of SenML', async () => {
    await using made = await registered(power);
    const { peer, client } = made;
    const values = Object.fromEntries(
      [...client.values].filter(([path]) => path.startsWith('/1/') || path.startsWith('/3/')),
    );
    for (const format of [ContentFormat.SenmlCbor, ContentFormat.SenmlJson]) {
      assert.equal(await peer.sendValues(format, '/1', '/3'), '2.04');
      assert.deepEqual(await next(peer), [undefined, values]);
    }
    assert.equal(await peer.deregister(), '2.02');
    assert.equal(await peer.sendValues(ContentFormat.SenmlCbor, '/3'), '4.04');
  });

  // conforms: ETS-307
  test('int-307: a client is told to send nothing unasked, and later to send again', async () => {
    await using made = await registered();
    const { peer, client } = made;
    const send = async () => await peer.sendValues(ContentFormat.SenmlCbor, '/3/0/16');
    assert.deepEqual(await statuses(peer, set('./1/0/23', 'true')), [200]);
    assert.equal(client.values.get('/1/0/23'), true);
    assert.equal(await send(), undefined);
    assert.deepEqual(await statuses(peer, set('./1/0/23', 'false')), [200]);
    assert.equal(await send(), '2.04');
    assert.deepEqual(await next(peer), [undefined, { '/3/0/16': 'U' }]);
  });

  const first = portfolio(0, 'aa', 'bb', 'cc', 'dd');
  const both = ['/16/0', '/16/1'];

  // conforms: ETS-308
  test('int-308: an instance that is created later is in the notifications of an observation that names it', async () => {
    await using made = await registered(first);
    const { peer, client, reports } = made;
    wish(peer, wishOf('both', both));
    assert.deepEqual(await next(peer), ['both', first]);
    assert.deepEqual(await statuses(peer, { name: 'Add', uri: './16/1', format: 'node' }), [200]);
    assert.equal(await reports.notify(...both), 'acknowledged');
    assert.deepEqual(await next(peer), ['both', { ...first, '/16/1/0/0': 'new' }]);
    const links = '</1/0>,</3/0>,</16/0>,</16/1>';
    assert.equal(await peer.send(Code.POST, peer.location, [], links), '2.04');
    await settled(peer);
    assert.equal(client.orders.filter((what) => what.startsWith('FETCH')).length, 1);
    assert.deepEqual([reports.observed, stateOf(peer, 'both')], [[both.join(' ')], { state: 'observing' }]);
  });

  // conforms: ETS-309
  test('int-309: an instance that is deleted is missing in the notifications from then on', async () => {
    const second = portfolio(1, '11', '22', '33', '44');
    await using made = await registered({ ...first, ...second });
    const { peer, reports } = made;
    wish(peer, wishOf('both', both));
    assert.deepEqual(await next(peer), ['both', { ...first, ...second }]);
    assert.deepEqual(await statuses(peer, { name: 'Delete', uri: './16/1' }), [200]);
    assert.equal(await reports.notify(...both), 'acknowledged');
    assert.deepEqual(await next(peer), ['both', first]);
    assert.deepEqual(stateOf(peer, 'both'), { state: 'observing' });
  });

  // conforms: ETS-310
  test('int-310: attributes that are written above an observed path leave the observation as it is', async () => {
    await using made = await registered();
    const { peer, client, reports } = made;
    const paths = ['/1/0/1', '/3/0'];
    wish(peer, wishOf('all', paths));
    const [name, values] = await next(peer);
    assert.deepEqual([name, values['/1/0/1'], values['/3/0/16']], ['all', 86_400, 'U']);
    wish(peer, wishOf('all', paths), wishOf('device', ['/3'], { pmax: 5 }));
    assert.equal((await next(peer))[0], 'device');
    assert.deepEqual(client.orders, [`FETCH ${paths.join(' ')} observe`, 'PUT /3?pmax=5', 'GET /3 observe']);
    for (const _ of [1, 2]) {
      assert.equal(await reports.notify(...paths), 'acknowledged');
      assert.deepEqual(await next(peer), ['all', values]);
    }
  });

  // conforms: ETS-311
  test('int-311: a client sends single values of several objects unasked', async () => {
    await using made = await registered();
    const { peer } = made;
    assert.equal(await peer.sendValues(ContentFormat.SenmlCbor, '/1/0/1', '/3/0/11'), '2.04');
    assert.deepEqual(await next(peer), [undefined, { '/1/0/1': 86_400, '/3/0/11/0': 0 }]);
  });
});
