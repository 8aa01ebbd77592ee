import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, describe, test } from 'node:test';
import { openDatabase } from '../../src/base/open-database.ts';
import { DmStatus } from '../../src/dm/status.ts';
import { type NewOrder, OrderBook, orderLimits } from '../../src/headend/order-book.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { HandClock } from '../hand-clock.ts';
import { fileServer } from '../journeys/file-server.ts';
import { lyingServer, says } from '../journeys/lying-server.ts';
import { Site, secrets } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';
import { asker, checkedOperations, describedOperations, startApi } from './api-client.ts';
import { enrolByApi } from './enrolment-calls.ts';

const limit = { timeout: 60_000 };
const id = 'urn:dev:ops:1';
const folder = mkdtempSync(join(tmpdir(), 'postern-order-states-'));
after(() => rmSync(folder, { recursive: true }));
const stateFile = () => join(mkdtempSync(join(folder, 'h-')), 'headend.db');
const party = (name: string) => ({
  id: name,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

/** A head-end with its API, which is started again by `restart`. */
async function rig(brokerUrl: string, deviceIds: readonly string[] = [id]) {
  const state = stateFile();
  const config = {
    headend: { id: 'dm.example', state, 'session-timeout': 2 },
    gateway: [party('gw-1'), party('gw-2')],
  };
  let stack = new AsyncDisposableStack();
  const begin = async () => {
    const site = stack.use(new Site(brokerUrl));
    const headend = await site.headend(deviceIds, config);
    const api = stack.use(await startApi(headend));
    return { site, headend, ask: asker(api.url) };
  };
  return {
    state,
    ...(await begin()),
    restart: async () => {
      await stack.disposeAsync();
      stack = new AsyncDisposableStack();
      return await begin();
    },
    [Symbol.asyncDispose]: async () => await stack.disposeAsync(),
  };
}

describe('the state of an order', limit, () => {
  test('an image by data ends in the answer, and the state is there after a restart', async () => {
    await using broker = await startAedes();
    await using started = await rig(broker.url);
    await using gatewaySite = new Site(broker.url);
    await gatewaySite.gateway([]);
    const data = randomBytes(300_000).toString('base64');
    const order = { gateway: 'gw-1', name: 'pushed', data };
    const good = await started.ask('POST', '/images', order);
    assert.deepEqual([good.status, good.body.state, good.body.status], [202, 'done', 200]);
    const wrong = await started.ask('POST', '/images', { ...order, name: 'wrong', hash: 'ab'.repeat(32) });
    assert.deepEqual([wrong.status, wrong.body.state, wrong.body.status], [202, 'failed', 402]);
    assert.match(String(wrong.body.reason), /SHA-256|digest|hash/i);
    const { ask } = await started.restart();
    assert.deepEqual((await ask('GET', '/images/gw-1/pushed')).body, good.body);
    assert.deepEqual((await ask('GET', '/images/gw-1/wrong')).body, wrong.body);
    assert.deepEqual(
      (await ask('GET', '/orders?limit=2')).body.map(({ kind, name, state }) => [kind, name, state]),
      [
        ['ImageOperation', 'wrong', 'failed'],
        ['ImageOperation', 'pushed', 'done'],
      ],
    );
    assert.deepEqual((await ask('DELETE', '/images/gw-1/wrong')).body, { removed: 'wrong' });
    assert.equal((await ask('GET', '/images/gw-1/wrong')).status, 404);
  });

  test('an image by URL runs until its alert, which may come after a restart; a second order of it replaces the first', async () => {
    await using files = await fileServer(randomBytes(50_000), []);
    await using missing = await lyingServer(says(404, {}), says(404, {}));
    await using broker = await startAedes();
    await using started = await rig(broker.url);
    await using gatewaySite = new Site(broker.url);
    await gatewaySite.gateway([]);
    const url = (address: string) => ({ gateway: 'gw-1', name: 'fw', url: address });
    const first = await started.ask('POST', '/images', url(files.url));
    assert.equal(first.status, 202);
    assert.ok(['running', 'done'].includes(String(first.body.state)), 'its alert may have come already');
    const later = await started.restart();
    const ended = async (correlator: unknown) => {
      for (;;) {
        const { body } = await later.ask('GET', `/orders/${correlator}`);
        if (body.state !== 'running') return body;
        await later.site.headendEvents.until('alert.image-operation', { correlator: String(correlator) });
      }
    };
    assert.equal((await ended(first.body.correlator)).state, 'done');
    const second = await later.ask('POST', '/images', url(missing.url));
    const failed = await ended(second.body.correlator);
    assert.deepEqual(
      [failed.state, failed.status, failed.reason, failed.result],
      [
        'failed',
        500,
        'the download server answered 404',
        '<ImageResult Code="500"><Reason>the download server answered 404</Reason></ImageResult>',
      ],
    );
    assert.equal((await later.ask('GET', `/orders/${first.body.correlator}`)).status, 404, 'replaced');
  });

  test('a fan-out: its name is taken while it runs, after it ended and after a restart; not after it failed', async () => {
    await using broker = await startAedes();
    await using started = await rig(broker.url);
    await using gatewaySite = new Site(broker.url);
    const gateway = await gatewaySite.gateway([id]);
    {
      await using device = gatewaySite.device(id, gateway, { factory: true });
      await device.start();
      await device.attached;
      await started.site.headendEvents.until('alert.device-attach');
    }
    // The device is gone, so the fan-out runs until it is deleted.
    const order = {
      ...{ gateway: 'gw-1', name: 'f', timeout: 3600, deadline: 3600 },
      operations: [{ name: 'Get', uri: './DevInfo/Man' }],
    };
    const both = await Promise.all([
      started.ask('POST', '/fanouts', order),
      started.ask('POST', '/fanouts', order),
    ]);
    assert.deepEqual(both.map(({ status }) => status).toSorted(), [202, 409], 'two at once: one of them');
    const { ask } = await started.restart();
    const running = await ask('GET', '/fanouts/gw-1/f');
    assert.equal(running.body.state, 'running');
    assert.equal(Date.parse(String(running.body.due)) - Date.parse(String(running.body.accepted)), 3_600_000);
    const again = await ask('POST', '/fanouts', order);
    assert.deepEqual([again.status, again.body.error], [409, 'conflict']);
    assert.match(String(again.body.message), /a fan-out named f exists at gw-1 .*state is running/);
    assert.equal((await ask('GET', '/fanouts/gw-1/f')).body.correlator, running.body.correlator);
    assert.equal((await ask('DELETE', '/fanouts/gw-1/f')).status, 200);
    const ended = await ask('POST', '/fanouts', { ...order, devices: ['urn:dev:nobody'] });
    const { correlator } = ended.body;
    assert.notEqual(correlator, running.body.correlator);
    while ((await ask('GET', `/orders/${correlator}`)).body.state !== 'done');
    assert.match(String((await ask('GET', '/fanouts/gw-1/f')).body.result), /Status="404"/);
    assert.equal((await ask('POST', '/fanouts', order)).status, 409, 'the result does not vanish');

    const refused = await ask('POST', '/fanouts', { gateway: 'gw-1', name: 'bad', command: '<Dance/>' });
    assert.equal(refused.status, 409);
    const seen = await ask('GET', '/fanouts/gw-1/bad');
    assert.deepEqual([seen.body.state, seen.body.status], ['failed', 409]);
    assert.match(String(seen.body.reason), /gw-1 answered .* with 400/);
    const mended = await ask('POST', '/fanouts', { ...order, name: 'bad', devices: ['urn:dev:nobody'] });
    assert.equal(mended.status, 202);
  });

  test('a gateway that is away: the order has failed and had no effect, and its name is free', async () => {
    await using broker = await startAedes();
    await using started = await rig(broker.url);
    const order = { gateway: 'gw-2', name: 'f', operations: [{ name: 'Get', uri: './DevInfo/Man' }] };
    const sent = await started.ask('POST', '/fanouts', order);
    assert.ok(sent.status >= 400);
    const seen = await started.ask('GET', '/fanouts/gw-2/f');
    assert.deepEqual([seen.body.state, seen.body.reason], ['failed', sent.body.message]);
    assert.notEqual((await started.ask('POST', '/fanouts', order)).status, 409);
  });

  test('a trigger: sessions are there after a restart, and one that had not ended has 503', async () => {
    const other = 'urn:dev:ops:2';
    await using broker = await startAedes();
    await using started = await rig(broker.url, [id, other]);
    await using gatewaySite = new Site(broker.url);
    const gateway = await gatewaySite.gateway([]);
    const device = gatewaySite.device(id, gateway, { server: true });
    await device.start();
    await device.attached;
    const trigger = {
      ...{ gateway: 'gw-1', name: 't', devices: [id, other] },
      operations: [{ name: 'Get', uri: './DevInfo/Man' }],
    };
    assert.equal((await started.ask('POST', '/triggers', trigger)).status, 202);
    assert.equal((await started.ask('POST', '/triggers', trigger)).status, 409);
    const done = () => started.headend.triggered('gw-1', 't')?.some(({ status }) => status === 200);
    while (!done()) await started.site.headendEvents.next('session.ended');
    const { ask } = await started.restart();
    const { body } = await ask('GET', '/triggers/gw-1/t');
    const operations = [
      {
        ...{ name: 'Get', uri: './DevInfo/Man', status: 200 },
        results: [{ uri: './DevInfo/Man', format: 'chr', data: 'Maker & Sons' }],
      },
    ];
    assert.deepEqual(body.sessions, [
      { device: id, status: 200, operations },
      { device: other, status: 503, operations: [] },
    ]);
    assert.equal((await ask('GET', '/triggers')).body.length, 1);
    assert.equal((await ask('DELETE', '/triggers/gw-1/t')).status, 200);
    assert.equal((await ask('GET', '/triggers/gw-1/t')).status, 404);
  });

  test('commands in a session: who lost the answer reads it by its order, also after a restart', async () => {
    await using broker = await startAedes();
    await using started = await rig(broker.url);
    await using gatewaySite = new Site(broker.url);
    await gatewaySite.gateway([]);
    const answer = await started.ask('POST', '/gateways/gw-1/sessions', {
      operations: [{ name: 'Get', uri: './DevInfo/Mod' }],
    });
    const { ask } = await started.restart();
    const [order] = (await ask('GET', '/orders?limit=1')).body;
    assert.deepEqual(
      [order?.kind, order?.party, order?.correlator, order?.state, order?.operations],
      ['Session', 'gw-1', answer.body.correlator, 'done', answer.body.operations],
    );
    const refused: [string, RegExp][] = [
      ['/gateways/gw-9/sessions', /there is no gateway gw-9 .*its gateways are gw-1, gw-2$/],
      [`/gateways/${id}/sessions`, /is a device, not a gateway/],
      ['/devices/urn:dev:nobody/sessions', /no account/],
    ];
    for (const [path, message] of refused) {
      const { status, body } = await ask('POST', path, {});
      assert.equal(status, 404);
      assert.match(String(body.message), message);
    }
    assert.equal((await ask('GET', '/orders')).body.length, 1, 'what is refused at once is no order');
  });

  test('a bootstrap waits for the device, fails while the gateway is away, and is done when it comes', async () => {
    await using broker = await startAedes();
    await using started = await rig(broker.url);
    await using through = new Site(broker.url);
    await using belongs = new Site(broker.url);
    const first = await through.gateway([]);
    assert.equal((await started.ask('GET', `/policies/${id}`)).status, 404);
    const assigned = await started.ask('PUT', `/policies/${id}`, { gateway: 'gw-2' });
    const stateOf = ({ body }: { body: Record<string, unknown> }) =>
      (body.bootstrap as { state?: string; reason?: string } | undefined)?.state;
    assert.equal(stateOf(assigned), 'running');
    const { ask, site } = await started.restart();
    assert.equal(stateOf(await ask('GET', `/policies/${id}`)), 'running');
    {
      await using device = through.device(id, first, { server: true });
      await device.start();
      await site.headendEvents.until('bootstrap.assisted-failed', { device: id });
    }
    assert.equal(stateOf(await ask('GET', `/policies/${id}`)), 'failed');
    await belongs.gateway([], { gateway: { id: 'gw-2', state: ':memory:' } });
    const device = through.device(id, first, { server: true });
    await device.start();
    await site.headendEvents.until('bootstrap.assisted', { device: id, gateway: 'gw-2', status: 200 });
    await site.headendEvents.until('session.ended', { device: id });
    assert.equal(stateOf(await ask('GET', `/policies/${id}`)), 'done');
    assert.deepEqual((await ask('PUT', `/policies/${id}`, { gateway: 'gw-9' })).status, 404);
    assert.equal((await ask('DELETE', `/policies/${id}`)).body.removed, id);
  });

  test('the rest of the API answers as the OpenAPI document says, and no operation is left out', async () => {
    await using broker = await startAedes();
    await using started = await rig(broker.url);
    await using gatewaySite = new Site(broker.url);
    const gateway = await gatewaySite.gateway([]);
    const device = gatewaySite.device(id, gateway, { server: true });
    await device.start();
    await started.site.headendEvents.until('alert.device-attach');
    const { ask } = started;
    await ask('PUT', '/policies/x', { gateway: 'gw-1' });
    for (const path of '/healthz /counts /gateways /devices /sessions /alerts /policies /fanouts /images'.split(
      ' ',
    ))
      assert.equal((await ask('GET', path)).status, 200);
    const operations = [
      { name: 'Sequence', operations: [{ name: 'Get', uri: './DevInfo/Mod' }] },
      { name: 'Get', uri: './DevInfo' },
    ];
    assert.equal((await ask('POST', `/devices/${id}/sessions`, { operations })).status, 200);
    assert.equal((await ask('PUT', '/groups/g', { gateway: 'gw-1', devices: [id] })).status, 200);
    assert.equal((await ask('PUT', '/groups/g', { gateway: 'gw-9', devices: [] })).status, 404);
    const observation = { name: 'o', paths: ['./DevInfo/Man'], reportPeriod: 1 };
    const observations = '/gateways/gw-1/observations';
    assert.equal((await ask('POST', observations, observation)).status, 200);
    assert.equal((await ask('GET', observations)).body.length, 1);
    assert.equal((await ask('GET', `${observations}/o`)).status, 200);
    await started.site.headendEvents.until('telemetry.received');
    assert.equal((await ask('GET', `/devices/${id}/values`)).body.length, 1);
    const history = `/devices/${id}/values/history?path=/DevInfo/Man&from=2020-01-01T00:00:00Z`;
    assert.equal((await ask('GET', history)).body.length, 1);
    for (const path of ['./DevInfo/Man', 'DevInfo/Man']) {
      const { body } = await ask('GET', history.replace('/DevInfo/Man', path));
      assert.equal(body.length, 1, `${path}: as the observation was ordered`);
    }
    assert.equal((await ask('GET', `${history}&to=2020-01-02T00:00:00Z`)).body.length, 0);
    assert.equal((await ask('DELETE', `${observations}/o`)).body.removed, 'o');
    await enrolByApi();
    assert.deepEqual(
      describedOperations.filter((operation) => !checkedOperations.has(operation)),
      [],
    );
  });
});

describe('the order book', () => {
  const order: NewOrder = { kind: 'CommandFanout', party: 'gw-1', name: 'f', correlator: 'c-1' };
  const book = (file = ':memory:') => {
    const database = openDatabase(file, headendSchema);
    return { database, orders: new OrderBook(database, new HandClock()) };
  };

  test('a process that ended while it sent leaves an order of unknown outcome; a result that comes later settles it', async () => {
    const file = stateFile();
    const before = book(file);
    before.orders.begin(order);
    assert.equal(before.orders.find('c-1')?.state, 'sending');
    await before.database.close();
    const { database, orders } = book(file);
    assert.deepEqual(
      [orders.find('c-1')?.state, orders.find('c-1')?.reason],
      ['unknown', 'this server was restarted before the party answered'],
    );
    assert.throws(() => orders.begin({ ...order, correlator: 'c-2' }), {
      code: 'conflict',
      message: /unknown/,
    });
    orders.resulted('CommandFanout', 'gw-1', 'f', 'c-0', { state: 'failed' });
    assert.equal(orders.find('c-1')?.state, 'unknown', 'the result of another order');
    orders.resulted('CommandFanout', 'gw-1', 'f', 'c-1', { state: 'done' });
    assert.equal(orders.find('c-1')?.state, 'done');
    await database.close();
  });

  test('a gateway that lost its state: what ran there is unknown, and other orders stay as they are', () => {
    const { orders } = book();
    const running = orders.begin(order);
    orders.taken(running);
    orders.end(orders.begin({ ...order, name: 'g', correlator: 'c-2' }), { state: 'done' });
    orders.taken(orders.begin({ ...order, party: 'gw-2', correlator: 'c-3' }));
    orders.lost('gw-1');
    assert.deepEqual(
      ['c-1', 'c-2', 'c-3'].map((correlator) => orders.find(correlator)?.state),
      ['unknown', 'done', 'running'],
    );
    orders.taken(running);
    assert.equal(orders.find('c-1')?.state, 'unknown');
  });

  test('the number of orders of a kind is bounded, and other kinds do not displace them', () => {
    const { orders } = book();
    orders.begin(order);
    for (let at = 0; at <= orderLimits.Session; at++)
      orders.begin({ kind: 'Session', party: 'gw-1', name: `s${at}`, correlator: `s${at}` });
    assert.deepEqual(
      [orders.list('Session').length, orders.list('Session')[0]?.name, orders.find('c-1')?.name],
      [orderLimits.Session, 's1', 'f'],
    );
  });

  test('a row that cannot be read is set aside, and the others are listed', async () => {
    const file = stateFile();
    const before = book(file);
    before.orders.begin(order);
    before.orders.begin({ ...order, name: 'g', correlator: 'c-2' });
    await before.database.close();
    const raw = new DatabaseSync(file);
    raw.exec("UPDATE accepted_order SET state = 'dancing' WHERE name = 'f'");
    raw.close();
    const { database, orders } = book(file);
    assert.deepEqual(
      orders.list('CommandFanout').map(({ name }) => name),
      ['g'],
    );
    await database.close();
  });

  test('values beyond the limit are left out of what is stored of a session; the statuses stay', () => {
    const { orders } = book();
    const number = orders.begin({ ...order, kind: 'Session' });
    const data = 'x'.repeat(70_000);
    const operations = [{ name: 'Get', uri: './x', status: DmStatus.Ok, results: [{ uri: './x', data }] }];
    orders.end(number, { state: 'done', operations });
    assert.deepEqual(orders.find('c-1')?.operations, [{ name: 'Get', uri: './x', status: 200 }]);
  });
});
