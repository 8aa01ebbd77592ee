import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Clock } from '../../src/base/clock.ts';
import { hashedName } from '../../src/base/hashed-name.ts';
import { composeGateway } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { Nat } from '../peers/nat.ts';
import { freshState } from '../state-files.ts';
import { gatewayConfig, loopback, Site, secrets, type Toml } from './site.ts';

const limit = { timeout: 60_000 };
/** DTLS alone, as it is by default. */
const coap = { port: 0, leisure: 50 };
const id = 'urn:dev:deep:1';
const noBroker = 'mqtt://127.0.0.1:1';
const look = '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevDetail/FwV</LocURI></Target></Item></Get>';
const party = (name: string) => ({
  id: name,
  'client-secret': secrets.gatewayClient,
  'server-secret': secrets.gatewayServer,
});

/** Starts a gateway below another. It has a `Site` of its own, so that its events are separate. */
const below = (
  site: Site,
  parent: Pick<Gateway, 'coapsPort'>,
  parentId: string,
  gatewayId: string,
  ids: readonly string[],
  clock?: Clock,
  more: Toml = {},
) =>
  site.gateway(
    ids,
    {
      gateway: { id: gatewayId, state: ':memory:' },
      coap,
      mqtt: undefined,
      parent: {
        id: parentId,
        uri: `coaps://127.0.0.1:${parent.coapsPort}`,
        'factory-secret': secrets.factory(gatewayId),
        ...more,
      },
    },
    false,
    { ...(clock && { clock }) },
  );

describe('gateways behind gateways (GwMO 1.1): three levels', limit, () => {
  // conforms: GW-22
  test('alerts and fan-outs pass three levels, and a device at the lowest has its own session with the DM server', async () => {
    await using broker = await startAedes();
    await using top = new Site(broker.url);
    await using middle = new Site(broker.url);
    await using bottom = new Site(broker.url);
    const headend = await top.headend([id], { gateway: [party('gw-1'), party('gw-2'), party('gw-3')] });
    const first = await top.gateway(['gw-2'], { coap });
    const second = await below(middle, first, 'gw-1', 'gw-2', ['gw-3']);
    await top.headendEvents.until('alert.device-attach', { device: 'gw-2', gateway: 'gw-1' });
    const third = await below(bottom, second, 'gw-2', 'gw-3', [id]);
    await top.headendEvents.until('alert.device-attach', { device: 'gw-3', gateway: 'gw-2' });

    const device = bottom.device(id, third, { factory: true, server: true });
    await device.start();
    await device.attached;
    await top.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-3' });

    const at = (name: string) => `./GwDeviceInventory/Records/${hashedName(name)}`;
    const seen = await headend.manage('gw-1', [
      { name: 'Get', uri: `${at('gw-2')}/ComponentType` },
      { name: 'Get', uri: `${at('gw-3')}/ComponentType` },
      { name: 'Get', uri: `${at('gw-3')}/Gateway` },
      { name: 'Get', uri: `${at(id)}/ComponentType` },
      { name: 'Get', uri: `${at(id)}/Gateway` },
    ]);
    assert.deepEqual(
      seen.map(({ results }) => results[0]?.data),
      ['1', '1', 'gw-2', '0', 'gw-2/gw-3'],
    );

    const started = await headend.fanOut('gw-1', {
      name: 'deep',
      command:
        '<Get><CmdID>1</CmdID><Item><Target><LocURI>./DevDetail/FwV</LocURI></Target></Item></Get><Replace><CmdID>2</CmdID><Item><Target><LocURI>./Settings/Label</LocURI></Target><Data>deep</Data></Item></Replace>',
      targets: {},
      returnFormat: 0,
    });
    await top.headendEvents.until('alert.command-fanout', { correlator: started.correlator });
    assert.equal(
      headend.fanouts()[0]?.result,
      `<CampaignResult Total="1" Done="1" Failed="0" Pending="0"><Group Status="200" Commands="200 200" Count="1"><Device ID="${id}"><Result URI="./DevDetail/FwV">1.0.0</Result></Device></Group></CampaignResult>`,
    );
    assert.equal(device.value('Settings', 'Label'), 'deep');

    const own = await headend.manage(id, [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(own[0]?.results[0]?.data, id, 'the device has a session through three gateways');
    const child = await headend.manage('gw-3', [{ name: 'Get', uri: './DevInfo/DevId' }]);
    assert.equal(child[0]?.results[0]?.data, 'gw-3', 'the DM server manages the lowest gateway as well');

    await device.detach();
    await top.headendEvents.until('alert.device-detach', { device: id, gateway: 'gw-3', reason: 'left' });
  });

  test('after a restart of the DM server, a device behind two gateways is reached before anybody below has spoken', async (t) => {
    await using broker = await startAedes();
    await using middle = new Site(broker.url);
    await using bottom = new Site(broker.url);
    const settings = {
      headend: { id: 'dm.example', state: freshState(t), 'session-timeout': 20 },
      gateway: [party('gw-1'), party('gw-2'), party('gw-3')],
    };
    await using top = new Site(broker.url);
    const first = await top.gateway(['gw-2'], { coap });
    {
      await using before = new Site(broker.url);
      await before.headend([id], settings);
      const second = await below(middle, first, 'gw-1', 'gw-2', ['gw-3']);
      const third = await below(bottom, second, 'gw-2', 'gw-3', [id]);
      const device = bottom.device(id, third, { factory: true, server: true });
      await device.start();
      await before.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-3' });
    }
    await using after = new Site(broker.url);
    const headend = await after.headend([id], settings);
    for (const who of [id, 'gw-3', 'gw-2']) {
      const [answer] = await headend.manage(who, [{ name: 'Get', uri: './DevInfo/DevId' }]);
      assert.equal(answer?.results[0]?.data, who);
    }
  });

  test('a parent gateway that has lost its state learns from its child which devices are behind it', async (t) => {
    await using broker = await startAedes();
    await using server = new Site(broker.url);
    await using middle = new Site(broker.url);
    const headend = await server.headend([id], { gateway: [party('gw-1'), party('gw-2')] });
    const start = (site: Site, port: number, securePort = 0) =>
      site.gateway(['gw-2'], {
        gateway: { id: 'gw-1', state: freshState(t) },
        coap: { ...coap, port },
        coaps: { port: securePort },
      });
    let port: number;
    let securePort: number | undefined;
    {
      await using before = new Site(broker.url);
      const first = await start(before, 0);
      port = first.coapPort;
      securePort = first.coapsPort;
      // It takes half a minute until a child knows that silence means a parent with other keys.
      const second = await below(middle, first, 'gw-1', 'gw-2', [id], new LeapClock(20));
      const device = middle.device(id, second, { factory: true });
      await device.start();
      await before.gatewayEvents.until('device.attached', { device: id, via: 'gw-2' });
    }
    await using after = new Site(broker.url);
    const attached = after.gatewayEvents.next('device.attached', { device: id, via: 'gw-2' });
    await start(after, port, securePort);
    await attached;
    const { correlator } = await headend.fanOut('gw-1', { name: 'all', targets: {}, command: look });
    await server.headendEvents.until('alert.command-fanout', { correlator });
    assert.match(headend.fanouts()[0]?.result ?? '', /Total="1" Done="1" Failed="0" Pending="0"/);
  });

  // conforms: GW-22
  test('the DM server bootstraps a device to the child gateway that it came through', async () => {
    await using broker = await startAedes();
    await using top = new Site(broker.url);
    await using middle = new Site(broker.url);
    await top.headend([id], { gateway: [party('gw-1'), party('gw-2')] });
    const first = await top.gateway(['gw-2'], { coap });
    const second = await below(middle, first, 'gw-1', 'gw-2', []);
    await top.headendEvents.until('alert.device-attach', { device: 'gw-2', gateway: 'gw-1' });
    const device = middle.device(id, second, { server: true });
    await device.start();
    await device.attached;
    await top.headendEvents.until('bootstrap.assisted', { device: id, gateway: 'gw-2', status: 200 });
    await top.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-2' });
    assert.deepEqual(device.servers.toSorted(), ['dm.example', 'gw-2']);
  });
});

test(
  'a child with more alerts than its share, while the uplink of its parent is down: the parent goes on, and none is lost',
  limit,
  async () => {
    await using broker = await startAedes();
    await using top = new Site(broker.url);
    await using middle = new Site(broker.url);
    const ids = Array.from({ length: 6 }, (_, at) => `urn:dev:many:${at}`);
    await top.headend([], { gateway: [party('gw-1'), party('gw-2')] });
    const first = await top.gateway(['gw-2', 'own'], { coap, limits: { outbox: 12 } });
    const second = await below(middle, first, 'gw-1', 'gw-2', ids);
    await top.headendEvents.until('alert.device-attach', { device: 'gw-2' });
    await top.gatewayEvents.until('alert.delivered', { device: 'gw-2' });
    // The DM server has asked the child for its proof.
    await middle.gatewayEvents.until('dm.session-ended', { server: 'dm.example' });
    const down = top.gatewayEvents.next('mqtt.disconnected');
    await broker.stop();
    await down;
    for (const device of ids) await middle.device(device, second, { factory: true }).start();
    const refused = await middle.gatewayEvents.until('alert.refused', { status: 420 });
    assert.equal(refused.fields.server, 'gw-1');
    await top.device('own', first, { factory: true }).start();
    await top.gatewayEvents.until('device.attached', { device: 'own' });
    const { outbox } = first.status();
    assert.deepEqual(
      [outbox.waiting, outbox.dropped],
      [4, 0],
      'a quarter of 12 for the child, and the own alert',
    );
    assert.ok(outbox.refused > 0);
    assert.equal(top.gatewayEvents.count('hierarchy.refused'), 1);
    await broker.restart();
    for (const device of [...ids, 'own']) await top.headendEvents.until('alert.device-attach', { device });
    const attached = top.headendEvents.all.filter(({ name }) => name === 'alert.device-attach');
    assert.equal(attached.length, ids.length + 2, 'each once');
    assert.equal(first.status().outbox.dropped, 0);
  },
);

test(
  'a child with another secret is told so, once for each reason, and nobody but the parent sends it notifications',
  limit,
  async () => {
    await using top = new Site(noBroker);
    await using middle = new Site(noBroker);
    const first = await top.gateway(['gw-2'], { coap }, false);
    const more = { 'factory-secret': 'another-secret-of-gw-2' };
    const second = await below(middle, first, 'gw-1', 'gw-2', [], new LeapClock(40), more);
    const told = await middle.gatewayEvents.until('parent.unreachable');
    assert.equal(told.fields.reason, 'the server does not take the key');
    assert.equal(second.status().uplink.reason, told.fields.reason);
    assert.equal(middle.gatewayEvents.count('parent.unreachable'), 1);
    assert.equal(top.gatewayEvents.count('bootstrap.issued'), 0);
    await using stranger = await CoapPeer.open();
    const { name } = await stranger.call(second.coapPort, {
      method: Code.POST,
      path: ['dmn'],
      payload: Buffer.of(1),
    });
    assert.equal(name, '4.01');
  },
);

test(
  'the key of a child ends at its parent: the association closes, and the child gets another account',
  limit,
  async () => {
    await using top = new Site(noBroker);
    await using middle = new Site(noBroker);
    const config = gatewayConfig(noBroker, ['gw-2'], { coap });
    const surroundings = { events: top.gatewayEvents, listInterfaces: loopback('IPv4') };
    const parts = composeGateway(config, surroundings);
    await using first = new Gateway(config, surroundings, parts);
    await first.start();
    await below(middle, first, 'gw-1', 'gw-2', [], new LeapClock(40));
    await top.gatewayEvents.until('device.attached', { device: 'gw-2' });
    const again = middle.gatewayEvents.next('parent.bootstrapped');
    const lost = middle.gatewayEvents.next('parent.lost');
    parts.state.database.transaction(() => parts.state.credentials.keys.remove('gw-2'));
    await lost;
    await again;
    await middle.gatewayEvents.next('parent.connected');
  },
);

test(
  'a child whose address changes keeps its association, and its parent reaches it at the new one',
  limit,
  async () => {
    await using top = new Site(noBroker);
    await using middle = new Site(noBroker);
    await using nat = await Nat.open();
    const first = await top.gateway(['gw-2'], { coap }, false);
    nat.leadTo({ coapPort: first.coapsPort! });
    const second = await below(middle, { coapsPort: nat.coapPort }, 'gw-1', 'gw-2', [id]);
    await top.gatewayEvents.until('device.attached', { device: 'gw-2' });
    const opened = top.gatewayEvents.count('dtls.opened');
    nat.takeOver(nat.insidePorts[0]!, 1);
    await middle.device(id, second, { factory: true }).start();
    await top.gatewayEvents.until('dtls.moved');
    await top.gatewayEvents.until('device.attached', { device: id, via: 'gw-2' });
    const [answer] = await first.manage('gw-2', [{ name: 'Get', uri: './DevInfo/DevId' }], 10_000);
    assert.equal(answer?.results[0]?.data, 'gw-2');
    assert.equal(top.gatewayEvents.count('dtls.opened'), opened);
  },
);
