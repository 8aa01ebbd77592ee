import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { composeGateway } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { asker, startApi } from '../headend/api-client.ts';
import { type Broker, startAedes } from '../peers/brokers.ts';
import { LightClient } from '../peers/light-client.ts';
import { childTables, gatewayConfig, loopback, Site, secrets } from './site.ts';

const limit = { timeout: 90_000 };
const folder = mkdtempSync(join(tmpdir(), 'postern-telemetry-'));
after(() => rmSync(folder, { recursive: true }));
const meter = 'urn:dev:ops:meter-1';
const client = 'urn:dev:ops:thermometer-1';
const path = '/3303/0/5700';
const lwm2m = { device: [{ id: client }, { id: `${client}0` }], 'insecure-no-security': true };
/** Each value is a report of its own, so that a test need not wait. */
const order = { name: 'temperature', paths: ['3303/0/5700'], reportCount: 1 };

const soon = () => new Promise<void>((resolve) => setImmediate(resolve));
const mkdir = (path: string): string => {
  mkdirSync(path, { recursive: true });
  return path;
};

/** A broker, a head-end and its API. Gateways have their state in a file and start and stop as the test says. */
async function field(name: string) {
  const stack = new AsyncDisposableStack();
  const broker: Broker = stack.use(await startAedes());
  const site = stack.use(new Site(broker.url));
  const headend = await site.headend([]);
  const api = stack.use(await startApi(headend));
  const ask = asker(api.url);
  const state = join(mkdir(join(folder, name)), 'state.db');
  const gateways: Gateway[] = [];
  let port = 0;
  const start = async (more: Record<string, unknown> = {}) => {
    const config = gatewayConfig(broker.url, [meter], {
      gateway: { id: 'gw-1', state },
      coap: { port, leisure: 50, 'insecure-plain-coap': true },
      lwm2m,
      ...more,
    });
    const surroundings = { events: site.gatewayEvents, listInterfaces: loopback('IPv4') };
    const parts = composeGateway(config, surroundings);
    const gateway = new Gateway(config, surroundings, parts);
    gateways.push(gateway);
    await gateway.start();
    port = gateway.coapPort;
    return { gateway, parts };
  };
  stack.defer(async () => {
    for (const gateway of gateways) await gateway[Symbol.asyncDispose]();
  });
  /** Resolves when the DM server has so many values of the path. Returns them, the oldest first. */
  const history = async (count: number, device = client) => {
    for (;;) {
      const next = site.headendEvents.next('telemetry.received');
      const { body } = await ask('GET', `/devices/${device}/values/history?path=${path}&limit=1000`);
      if (body.length >= count) return body.map(({ value }) => value).toReversed();
      await next;
    }
  };
  return {
    broker,
    site,
    headend,
    ask,
    start,
    state,
    history,
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

test(
  'an LwM2M client is observed: from the order at the API to its values there, through a restart and an uplink that is away',
  limit,
  async () => {
    await using all = await field('whole');
    const { broker, site, ask, start, history } = all;
    const { gateway } = await start();
    await site.gatewayEvents.until('mqtt.connected');
    using thermometer = new LightClient(client, gateway.coapPort);
    thermometer.value = 20;
    await thermometer.register();
    await site.headendEvents.until('alert.device-attach', { device: client });
    const ordered = await ask('POST', '/gateways/gw-1/observations', { ...order, pmax: 3600, st: 0.5 });
    assert.deepEqual([ordered.status, ordered.body.state], [200, 'running']);
    await thermometer.observed;
    assert.deepEqual(thermometer.attributes.get(path)?.toSorted(), ['pmax=3600', 'st=0.5']);
    assert.deepEqual(await history(1), [20]);
    thermometer.notify(21);
    assert.deepEqual(await history(2), [20, 21]);
    const { body: latest } = await ask('GET', `/devices/${client}/values`);
    assert.deepEqual(
      latest.map(({ path: of, value, type, gateway: by }) => [of, value, type, by]),
      [[path, 21, 'number', 'gw-1']],
    );
    const { body: listed } = await ask('GET', '/gateways/gw-1/observations');
    assert.deepEqual(
      listed.map(({ name, state }) => [name, state]),
      [['temperature', 'running']],
    );
    const { body: stands } = await ask('GET', '/gateways/gw-1/observations/temperature');
    assert.deepEqual(stands.status, { state: 1, observed: 1, waiting: 0, refused: 0, refusals: '[]' });
    assert.ok(
      (gateway.status().budget?.day.kinds.telemetry.up ?? 0) > 0,
      'it is telemetry in the data budget',
    );

    // The gateway starts anew. The client stays registered, and is observed again.
    await gateway[Symbol.asyncDispose]();
    thermometer.value = 22;
    const again = thermometer.observedNext();
    const { gateway: second } = await start();
    await again;
    assert.deepEqual(await history(3), [20, 21, 22]);

    // The uplink is away for a while.
    const lost = site.gatewayEvents.next('mqtt.disconnected');
    await broker.stop();
    await lost;
    for (const value of [23, 24, 25]) {
      const buffered = second.status().telemetry.buffered;
      thermometer.notify(value);
      while (second.status().telemetry.buffered === buffered) await soon();
    }
    assert.equal(second.status().telemetry.buffered, 3);
    await broker.restart();
    assert.deepEqual(await history(6), [20, 21, 22, 23, 24, 25]);

    // A second client that attaches now is taken in.
    using other = new LightClient(`${client}0`, second.coapPort);
    other.value = 7;
    await other.register();
    assert.deepEqual(await history(1, `${client}0`), [7]);

    assert.deepEqual((await ask('DELETE', '/gateways/gw-1/observations/temperature')).body, {
      removed: 'temperature',
    });
    assert.deepEqual((await ask('GET', '/gateways/gw-1/observations')).body, []);
    assert.deepEqual(second.status().telemetry, { observations: 0, devices: 0, buffered: 0, dropped: 0 });
    assert.equal((await ask('GET', '/gateways/gw-1/observations/temperature')).status, 404);
  },
);

test(
  'reports outlast a stop, and a state that was taken back sends them again: each value counts once',
  limit,
  async () => {
    await using all = await field('taken-back');
    const { broker, site, ask, start, state, history } = all;
    const { gateway } = await start();
    await site.gatewayEvents.until('mqtt.connected');
    using thermometer = new LightClient(client, gateway.coapPort);
    thermometer.value = 1;
    await thermometer.register();
    await ask('POST', '/gateways/gw-1/observations', { ...order, reportCount: 0, reportPeriod: 3600 });
    await thermometer.observed;
    while (gateway.status().telemetry.buffered < 1) await soon();
    const lost = site.gatewayEvents.next('mqtt.disconnected');
    await broker.stop();
    await lost;
    await gateway[Symbol.asyncDispose]();
    const copies = join(folder, 'copies');
    const files = readdirSync(join(state, '..'));
    for (const name of files) cpSync(join(state, '..', name), join(copies, name), { recursive: true });
    await broker.restart();
    thermometer[Symbol.dispose]();
    const { gateway: second } = await start();
    assert.deepEqual(await history(1), [1]);
    await site.gatewayEvents.until('telemetry.delivered');
    await second[Symbol.asyncDispose]();

    for (const name of files) cpSync(join(copies, name), join(state, '..', name), { recursive: true });
    const repeated = site.gatewayEvents.next('telemetry.delivered');
    await start();
    await repeated;
    assert.equal(site.headendEvents.count('telemetry.received'), 1);
    assert.deepEqual(await history(1), [1]);
  },
);

test('what the buffer does not hold is dropped, counted, and told to the DM server', limit, async () => {
  await using all = await field('bound');
  const { broker, site, ask, start } = all;
  const { gateway, parts } = await start({ limits: { telemetry: 1 } });
  await site.gatewayEvents.until('mqtt.connected');
  using thermometer = new LightClient(client, gateway.coapPort);
  await thermometer.register();
  await ask('POST', '/gateways/gw-1/observations', order);
  await thermometer.observed;
  await site.gatewayEvents.until('telemetry.delivered');
  const lost = site.gatewayEvents.next('mqtt.disconnected');
  await broker.stop();
  await lost;
  const sent = 200;
  for (let n = 0; n < sent; n++)
    parts.telemetry.valued(client, order.name, [{ path, value: `${n} ${'x'.repeat(8000)}`, at: Date.now() }]);
  const { dropped, buffered } = gateway.status().telemetry;
  assert.equal(dropped + buffered, sent);
  assert.ok(dropped > 50);
  await broker.restart();
  await site.headendEvents.until('telemetry.lost');
  while (gateway.status().telemetry.buffered > 0) await site.gatewayEvents.next('telemetry.delivered');
  thermometer.notify(1);
  const told = () =>
    site.headendEvents.all.reduce(
      (sum, { name, fields }) => sum + (name === 'telemetry.lost' ? Number(fields.values) : 0),
      0,
    );
  while (told() < dropped) await site.headendEvents.next('telemetry.received');
  assert.equal(told(), dropped);
  const { body } = await ask('POST', '/gateways/gw-1/sessions', {
    operations: [{ name: 'Get', uri: './GwTelemetry/Dropped' }],
  });
  assert.equal((body.operations as { results: { data: string }[] }[])[0]?.results[0]?.data, String(dropped));
});

test('what a client sends unasked reaches the DM server', limit, async () => {
  await using all = await field('send');
  const { site, start, headend } = all;
  const { gateway } = await start();
  await site.gatewayEvents.until('mqtt.connected');
  using thermometer = new LightClient(client, gateway.coapPort);
  await thermometer.register();
  await site.headendEvents.until('alert.device-attach', { device: client });
  assert.equal(await thermometer.send(33), 0x44);
  assert.equal(gateway.status().telemetry.buffered, 1);
  // It waits for others. At a stop it is made a report, which goes after the next start.
  await gateway[Symbol.asyncDispose]();
  await start();
  await site.headendEvents.until('telemetry.received');
  assert.deepEqual(
    headend.values.latest(client).map(({ value }) => value),
    [33],
  );
});

test('an OMA DM device is asked for its values; of a path that it lacks there are none', limit, async () => {
  await using all = await field('polled');
  const { site, ask, start } = all;
  const { gateway } = await start();
  await site.gatewayEvents.until('mqtt.connected');
  const device = site.device(meter, gateway, { factory: true });
  await device.start();
  await device.attached;
  const paths = ['./DevInfo/Man', 'DevInfo/Missing'];
  const ordered = await ask('POST', '/gateways/gw-1/observations', {
    name: 'makers',
    paths,
    reportPeriod: 1,
  });
  assert.equal(ordered.status, 200);
  await site.headendEvents.until('telemetry.received');
  const { body: values } = await ask('GET', `/devices/${meter}/values`);
  assert.deepEqual(
    values.map(({ path: of, value }) => [of, value]),
    [['/DevInfo/Man', 'Maker & Sons']],
  );
  const { body: stands } = await ask('GET', '/gateways/gw-1/observations/makers');
  assert.deepEqual((stands.status as unknown as { observed: number }).observed, 1);
});

test(
  'the reference client tells its values, and is observed again after it has left and come',
  limit,
  async () => {
    await using all = await field('reference');
    const { site, ask, start, history } = all;
    const { gateway } = await start();
    await site.gatewayEvents.until('mqtt.connected');
    const reference = site.client(client, gateway);
    await reference.start();
    await site.headendEvents.until('alert.device-attach', { device: client });
    reference.set(path, 20);
    assert.equal((await ask('POST', '/gateways/gw-1/observations', order)).status, 200);
    assert.deepEqual(await history(1), [20]);
    reference.set(path, 21);
    assert.deepEqual(await history(2), [20, 21]);
    await reference.detach();
    await site.headendEvents.until('alert.device-detach', { device: client });
    reference.set(path, 22);
    await reference.start();
    assert.deepEqual(await history(3), [20, 21, 22]);
  },
);

test(
  'a device behind a child gateway is refused with what to do; the same order at the child brings its values once',
  limit,
  async () => {
    await using broker = await startAedes();
    await using top = new Site(broker.url);
    await using bottom = new Site(broker.url);
    const headend = await top.headend([], {
      gateway: ['gw-1', 'gw-2'].map((id) => ({
        id,
        'client-secret': secrets.gatewayClient,
        'server-secret': secrets.gatewayServer,
      })),
    });
    const parent = await top.gateway(['gw-2'], { coap: { port: 0, leisure: 50 } });
    const child = await bottom.gateway(
      [meter],
      { gateway: { id: 'gw-2', state: ':memory:' }, ...childTables('gw-2', parent) },
      false,
    );
    await top.headendEvents.until('alert.device-attach', { device: 'gw-2' });
    const device = bottom.device(meter, child, { factory: true });
    await device.start();
    await top.headendEvents.until('alert.device-attach', { device: meter, gateway: 'gw-2' });
    const makers = { name: 'makers', targets: {}, paths: ['./DevInfo/Man'], attributes: {}, reportPeriod: 1 };
    await headend.observations.order('gw-1', makers);
    const { refused, refusals } = await headend.observations.status('gw-1', 'makers');
    assert.equal(refused, 1);
    assert.deepEqual(JSON.parse(refusals), [
      {
        reason:
          'it is behind gw-2: order the same observation at gw-2, in its own GwTelemetry; sessions with gw-2 go through this gateway',
        count: 1,
        devices: [meter],
      },
    ]);
    await headend.observations.order('gw-2', makers);
    await top.headendEvents.until('telemetry.received', { gateway: 'gw-2' });
    assert.deepEqual(
      headend.values.latest(meter).map(({ value, gateway }) => [value, gateway]),
      [['Maker & Sons', 'gw-2']],
    );
    // The order at the parent stays, and its values do not come twice.
    assert.deepEqual(
      top.headendEvents.all.flatMap(({ name, fields }) =>
        name === 'telemetry.received' && fields.gateway !== 'gw-2' ? [fields.gateway] : [],
      ),
      [],
    );
  },
);

test('an order that is not right is refused with the reason, and leaves nothing', limit, async () => {
  await using all = await field('wrong');
  const { site, ask, start } = all;
  await start();
  await site.gatewayEvents.until('mqtt.connected');
  const wrong = { ...order, gt: 10, lt: 20 };
  assert.equal((await ask('POST', '/gateways/gw-1/observations', wrong)).status, 409);
  assert.deepEqual((await ask('GET', '/gateways/gw-1/observations')).body, []);
  assert.equal((await ask('POST', '/gateways/gw-9/observations', order)).status, 404);
  assert.equal((await ask('POST', '/gateways/gw-1/observations', { ...order, paths: [] })).status, 400);
  assert.equal((await ask('GET', '/devices/d/values/history')).status, 400);
});
