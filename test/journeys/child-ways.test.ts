import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { composeGateway } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import type { UpRequest } from '../../src/gateway/northbound/uplink.ts';
import type { OutboxKind } from '../../src/gateway/store/outbox.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { freshState } from '../state-files.ts';
import { gatewayConfig, loopback, Site, secrets } from './site.ts';

const limit = { timeout: 90_000 };
const id = 'urn:dev:below:1';
const other = 'urn:dev:other:1';
const coap = { port: 0, leisure: 50 };
const look = [{ name: 'Get', uri: './DevInfo/DevId' }] as const;
const party = (name: string) => ({
  id: name,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

/** Tables of a head-end with accounts for these gateways. */
const tables = (state: string, ...gateways: readonly string[]) => ({
  headend: { id: 'dm.example', state, 'session-timeout': 20 },
  gateway: gateways.map(party),
});

/** Starts the child `gw-2` behind a gateway. */
const childOf = (site: Site, parent: Gateway, parentId: string, state: string, ids: readonly string[]) =>
  site.gateway(
    ids,
    {
      gateway: { id: 'gw-2', state },
      coap,
      mqtt: undefined,
      parent: {
        id: parentId,
        uri: `coaps://127.0.0.1:${parent.coapsPort}`,
        'factory-secret': secrets.factory('gw-2'),
      },
    },
    false,
  );

/** The gateway `gw-4`: it says that the packages of its devices come through the child `gw-2` of another gateway. */
async function liar(t: TestContext, site: Site, url: string) {
  const config = gatewayConfig(url, [], { gateway: { id: 'gw-4', state: ':memory:' } });
  const surroundings = { events: site.gatewayEvents, listInterfaces: loopback('IPv4') };
  const parts = composeGateway(config, surroundings);
  const honest = parts.uplink.request.bind(parts.uplink);
  parts.uplink.request = async (request: UpRequest) =>
    await honest({ ...request, ...(request.device !== undefined && { via: 'gw-2' }) });
  const gateway = new Gateway(config, surroundings, parts);
  t.after(() => gateway[Symbol.asyncDispose]());
  await gateway.start();
  await site.gatewayEvents.until('mqtt.connected');
  /** Reports to the head-end what is not so, and waits for the answer. */
  const tell = async (kind: OutboxKind, device: string, body: object) => {
    const answered = site.gatewayEvents.next('alert.delivered', { device });
    parts.state.database.transaction(() => parts.state.outbox.add(kind, device, JSON.stringify(body)));
    parts.reports.wake();
    await answered;
  };
  return { gateway, tell };
}

describe('a gateway on the broker, and the child of another one', limit, () => {
  test('a lying gateway gets no device bootstrapped to the child of another gateway, and takes no way, before and after a restart of the DM server', async (t) => {
    await using broker = await startMosquitto();
    await using honest = new Site(broker.url);
    await using middle = new Site(broker.url);
    await using hostile = new Site(broker.url);
    const settings = tables(freshState(t), 'gw-1', 'gw-2', 'gw-4');
    const first = await honest.gateway(['gw-2'], { coap });
    let cheated: Awaited<ReturnType<typeof liar>>;
    const attack = async (site: Site) => {
      const refused = site.headendEvents.next('package.refused', { gateway: 'gw-4', device: other });
      await using below = new Site(broker.url);
      const device = below.device(other, cheated.gateway, { server: true });
      await device.start();
      assert.equal((await refused).fields.status, 503);
      await cheated.tell('device-attach', 'gw-2', { mode: 0, bootstrap: 'local', isGateway: true });
      await site.headendEvents.until('alert.attach-contested', { device: 'gw-2', gateway: 'gw-4' });
      assert.deepEqual(device.servers, ['dm.example'], 'the DM server has given it no account');
    };
    /** All that is honest works, through the honest parent. */
    const works = async (headend: Awaited<ReturnType<Site['headend']>>, site: Site) => {
      for (const who of ['gw-2', id])
        assert.equal((await headend.manage(who, look))[0]?.results[0]?.data, who);
      const refused = site.headendEvents.all.filter(({ name }) => name === 'package.refused');
      assert.deepEqual(
        refused.filter(({ fields }) => fields.gateway !== 'gw-4'),
        [],
      );
      const given = site.headendEvents.all.filter(({ name }) => name === 'bootstrap.assisted');
      assert.ok(given.every(({ fields }) => fields.device === id));
    };
    {
      await using before = new Site(broker.url);
      const headend = await before.headend([id, other], settings);
      const second = await childOf(middle, first, 'gw-1', ':memory:', [id]);
      await before.headendEvents.until('session.ended', { device: 'gw-2' });
      await middle.device(id, second, { factory: true, server: true }).start();
      await before.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-2' });
      cheated = await liar(t, hostile, broker.url);
      await attack(before);
      await works(headend, before);
    }
    await using after = new Site(broker.url);
    const headend = await after.headend([id, other], settings);
    await attack(after);
    await works(headend, after);
  });

  test('a child moves from one parent to another, while the DM server restarts: its devices are reached there, and none is lost', async (t) => {
    await using broker = await startMosquitto();
    await using one = new Site(broker.url);
    await using two = new Site(broker.url);
    const settings = tables(freshState(t), 'gw-1', 'gw-2', 'gw-4');
    const state = freshState(t);
    const deviceState = freshState(t);
    const old = await one.gateway(['gw-2'], { coap });
    const next = await two.gateway(['gw-2'], { gateway: { id: 'gw-4', state: ':memory:' }, coap });
    {
      await using server = new Site(broker.url);
      await server.headend([id], settings);
      await using middle = new Site(broker.url);
      const child = await childOf(middle, old, 'gw-1', state, [id, other]);
      const how = { factory: true, server: true, more: { state: deviceState } };
      await middle.device(id, child, how).start();
      await server.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-2' });
    }
    await using middle = new Site(broker.url);
    const child = await childOf(middle, next, 'gw-4', state, [id, other]);
    // It comes while the child has not proved its move: the head-end is away.
    await middle.device(other, child, { factory: true }).start();
    await two.gatewayEvents.until('device.attached', { device: other, via: 'gw-2' });
    const device = middle.device(id, child, { server: true, more: { state: deviceState } });
    await device.start();
    await using server = new Site(broker.url);
    const headend = await server.headend([id], settings);
    await server.headendEvents.until('device.moved', { device: 'gw-2', from: 'gw-1' });
    await server.headendEvents.until('alert.device-attach', { device: other, gateway: 'gw-2' });
    for (const who of ['gw-2', id]) assert.equal((await headend.manage(who, look))[0]?.results[0]?.data, who);
    await one.gatewayEvents.until('device.detached', { device: 'gw-2' });
    assert.deepEqual(
      headend.devices().map((each) => [each.id, each.gateway]),
      [
        ['gw-2', 'gw-4'],
        [id, 'gw-2'],
        [other, 'gw-2'],
      ],
    );
  });

  test('a child without an account: its devices have sessions, also after the DM server has lost its state', async () => {
    await using broker = await startMosquitto();
    await using top = new Site(broker.url);
    await using middle = new Site(broker.url);
    const settings = tables(':memory:', 'gw-1');
    const first = await top.gateway(['gw-2'], { coap });
    const second = await childOf(middle, first, 'gw-1', ':memory:', [id]);
    {
      await using before = new Site(broker.url);
      const headend = await before.headend([id], settings);
      await middle.device(id, second, { factory: true, server: true }).start();
      await before.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-2' });
      assert.equal((await headend.manage(id, look))[0]?.results[0]?.data, id);
    }
    await using after = new Site(broker.url);
    const headend = await after.headend([id], settings);
    const refused = after.headendEvents.next('package.refused', { device: id });
    const device = middle.device(id, second, { server: true });
    await device.start();
    assert.equal((await refused).fields.status, 503);
    await after.headendEvents.until('session.ended', { device: id });
    assert.equal((await headend.manage(id, look))[0]?.results[0]?.data, id);
  });
});
