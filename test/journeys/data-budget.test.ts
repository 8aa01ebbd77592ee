import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Code } from '../../src/wire/coap/codes.ts';
import { freePort, startMosquitto } from '../peers/brokers.ts';
import { selfSigned } from '../peers/certificates.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { CountingProxy } from '../peers/counting-proxy.ts';
import { fileServer } from './file-server.ts';
import { Site } from './site.ts';

const limit = { timeout: 60_000 };
const id = 'urn:dev:ops:1';
const tunnelled = {
  method: Code.POST,
  path: ['dm', 't', 'dm.example'],
  query: [`id=${id}`],
  contentFormat: 65001,
};

type Octets = { readonly up: number; readonly down: number };
const minus = (a: Octets, b: Octets): Octets => ({ up: a.up - b.up, down: a.down - b.down });

const pingResponse = Buffer.from([0xd0, 0]);
/** Inside of TLS nothing can be told apart. */
const isAnything = () => true;

/** Octets of an MQTT connection that does nothing, per keep-alive: PINGREQ and PINGRESP (MQTT 5, sections 3.12 and 3.13). */
async function keepAlives(
  proxy: CountingProxy,
  count: number,
  isResponse = (chunk: Buffer) => chunk.equals(pingResponse),
): Promise<Octets> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let seen = 0;
  proxy.passed = (direction, chunk) => {
    if (direction === 'down' && isResponse(chunk) && ++seen === count) resolve();
  };
  const before = proxy.octets;
  await promise;
  return minus(proxy.octets, before);
}

describe('the link that costs money', limit, () => {
  test('over a WebSocket the octets on the wire are counted as well', async () => {
    const port = await freePort();
    await using broker = await startMosquitto([
      'allow_anonymous true',
      `listener ${port} 127.0.0.1`,
      'protocol websockets',
    ]);
    await using proxy = await CountingProxy.before(`mqtt://127.0.0.1:${port}`);
    await using site = new Site(broker.url);
    await site.headend([]);
    const gateway = await site.gateway([id], { mqtt: { url: `ws://127.0.0.1:${proxy.port}` } });
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    await device.attached;
    await site.gatewayEvents.until('alert.delivered', { device: id });
    const { kinds, used } = gateway.status().budget!.day;
    assert.ok(kinds.alerts.up > 0);
    // What was passed may not have been read yet, and the other way round.
    const onWire = proxy.up + proxy.down;
    assert.ok(used > 2000 && Math.abs(onWire - used) < 500, `${used} of ${onWire} octets`);
  });

  test('an idle day, an attach and a fan-out: each octet on the wire is counted, and has a kind', async (t) => {
    await using broker = await startMosquitto();
    await using proxy = await CountingProxy.before(broker.url);
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway([id], {
      mqtt: { url: `mqtt://127.0.0.1:${proxy.port}`, keepalive: 1 },
    });
    const carried = () => {
      const { kinds } = gateway.status().budget!.day;
      const all = Object.values(kinds);
      const total = (way: 'up' | 'down') => all.reduce((sum, octets) => sum + octets[way], 0);
      return { kinds, up: total('up'), down: total('down') };
    };
    await keepAlives(proxy, 1);
    const { kinds: atFirst } = carried();
    const start = proxy.octets;
    const idle = await keepAlives(proxy, 3);
    assert.deepEqual(idle, { up: 6, down: 6 }, 'a keep-alive is two octets up and two down');
    const day = { up: start.up + 2 * 2880, down: start.down + 2 * 2880 };
    t.diagnostic(`an idle day with keepalive = 30: ${day.up} octets up, ${day.down} down`);
    assert.ok(day.up + day.down < 12_500);
    assert.equal(atFirst.alerts.up + atFirst.orders.up + atFirst.telemetry.up + atFirst.images.up, 0);

    const beforeAttach = carried();
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    await device.attached;
    await site.gatewayEvents.until('dm.session-ended');
    await keepAlives(proxy, 1);
    const attach = minus(carried(), beforeAttach);
    const { alerts } = carried().kinds;
    t.diagnostic(`an attach with its alert: ${attach.up} octets up, ${attach.down} down`);
    assert.ok(alerts.up > 1000 && alerts.up <= attach.up && alerts.down <= attach.down);
    assert.ok(attach.up + attach.down < 6000);

    await headend.manage('gw-1', [{ name: 'Get', uri: './DevDetail/FwV' }]);
    await site.gatewayEvents.until('dm.session-ended', { server: 'dm.example' });
    await keepAlives(proxy, 1);
    // The proxy counts an octet a little before the gateway has read it.
    while (carried().down < proxy.down) await new Promise(setImmediate);
    // The gateway counts an octet that it sends before the proxy has it.
    while (proxy.octets.up < carried().up) await new Promise(setImmediate);
    const { kinds, ...sum } = carried();
    assert.ok(kinds.orders.up > 500 && kinds.orders.down > 500);
    assert.deepEqual(sum, proxy.octets, 'what the gateway counted is what the proxy saw');
    assert.ok(kinds.connection.up > 0 && kinds.connection.down > 0);
  });

  test('with TLS, what TCP carries is counted, not what is inside', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-budget-'));
    try {
      const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')];
      selfSigned('localhost', { key, cert }, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1');
      await using broker = await startMosquitto([
        'allow_anonymous true',
        `certfile ${cert}`,
        `keyfile ${key}`,
        'user root',
      ]);
      await using proxy = await CountingProxy.before(broker.url);
      await using site = new Site(broker.url);
      const gateway = await site.gateway([id], {
        mqtt: { url: `mqtts://127.0.0.1:${proxy.port}`, ca: cert, keepalive: 1 },
      });
      await keepAlives(proxy, 2, isAnything);
      while (gateway.status().budget!.day.used < proxy.up + proxy.down) await new Promise(setImmediate);
      const { used } = gateway.status().budget!.day;
      assert.equal(used, proxy.up + proxy.down);
      assert.ok(used > 2000, 'a handshake is much more than CONNECT');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('a budget that runs short: telemetry is refused, orders go on, an image waits; a server raises it', async () => {
    await using broker = await startMosquitto();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const gateway = await site.gateway([id], { budget: { day: 60, month: 1000 } });
    await using peer = await CoapPeer.open();
    const file = randomBytes(300_000);
    await using files = await fileServer(file);
    await headend.stageImage('gw-1', { name: 'fw', version: '2', url: files.url });
    await site.gatewayEvents.until('budget.short', { traffic: 'images' });
    await site.gatewayEvents.until('image.broke-off');
    const told = await site.headendEvents.until('gateway.problem', { gateway: 'gw-1' });
    assert.match(String(told.fields.reason), /the data budget of the uplink leaves no room for .*images/);
    const large = { ...tunnelled, payload: randomBytes(900) };
    const answers = [await peer.call(gateway.coapPort, large), await peer.call(gateway.coapPort, large)];
    assert.deepEqual(
      answers.map(({ name, text }) => [name, text]),
      Array(2).fill(['5.03', 'the data budget of the uplink leaves no room for telemetry']),
    );
    assert.equal(gateway.status().counts['budget.short'], gateway.status().budget!.short.length);
    const [used] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwConfig/DataUsed' }]);
    const view = JSON.parse(String(used?.results[0]?.data));
    assert.equal(view.day.limit, 60_000);
    assert.ok(view.day.kinds.images.down > 40_000 && view.short.includes('telemetry'));
    const raised = { name: 'Replace', uri: './GwConfig/DataPerDay', data: '1000' } as const;
    const [outcome] = await headend.manage('gw-1', [raised]);
    assert.equal(outcome?.status, 200);
    assert.equal(gateway.status().budget!.day.limit, 1_000_000);
    assert.deepEqual(gateway.status().budget!.short, []);
    assert.notEqual((await peer.call(gateway.coapPort, large)).name, '5.03');
    await site.gatewayEvents.until('image.ready');
    assert.match(files.requests.at(-1) ?? '', /^bytes=[1-9]/, 'what was received before was kept');
    while (headend.gateways()[0]?.problem !== undefined) await site.headendEvents.next('gateway.state');
  });

  test('what a server has set survives a restart, and so do the counters', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-budget-'));
    t.after(() => rmSync(folder, { recursive: true }));
    await using broker = await startMosquitto();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    const changes = { gateway: { id: 'gw-1', state: join(folder, 'state.db') }, budget: { month: 5000 } };
    const first = await site.gateway([], changes);
    await headend.manage('gw-1', [{ name: 'Replace', uri: './GwConfig/DataPerMonth', data: '7000' }]);
    const { used } = first.status().budget!.month;
    await first[Symbol.asyncDispose]();
    const connected = site.gatewayEvents.next('mqtt.connected');
    const again = await site.gateway([], { ...changes, budget: { month: 6000, day: 3000 } });
    await connected;
    const { month, day } = again.status().budget!;
    assert.deepEqual([month.limit, day.limit], [7_000_000, 3_000_000]);
    assert.ok(used > 1000 && month.used > used);
  });
});
