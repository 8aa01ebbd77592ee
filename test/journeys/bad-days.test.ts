import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { decode as decodeCbor, Encoder } from 'cbor-x';
import { connectAsync } from 'mqtt';
import { Code } from '../../src/wire/coap/codes.ts';
import { Option, opaque, optionValue } from '../../src/wire/coap/options.ts';
import { encodeProof, proofMac } from '../../src/wire/syncml/bootstrap-proof.ts';
import { startAedes, startMosquitto } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { Site, secrets } from './site.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 60_000 };

const bootstrap = ['dm', 'bs'];

/** Asks for a challenge and answers it with a proof. Returns the second request and its response. */
async function prove(peer: CoapPeer, port: number, secret: string, deviceId = id) {
  const challenged = await peer.call(port, { method: Code.POST, path: bootstrap, query: [`id=${deviceId}`] });
  assert.equal(challenged.name, '4.01');
  const echo = optionValue(challenged.options, Option.Echo);
  assert.ok(echo);
  const deviceNonce = randomBytes(16);
  const request = {
    method: Code.POST,
    path: bootstrap,
    query: [`id=${deviceId}`],
    options: [opaque(Option.Echo, echo)],
    payload: encodeProof({ deviceNonce, mac: proofMac(secret, echo, deviceId, deviceNonce) }),
  };
  return { request, answer: await peer.call(port, request) };
}

describe('bootstraps that fail', limit, () => {
  test('a wrong factory secret and an unknown device get the same response, and leave no state', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([id]);
    await using peer = await CoapPeer.open();
    const wrong = await prove(peer, gateway.coapPort, 'not-the-secret');
    const unknown = await prove(peer, gateway.coapPort, secrets.factory('urn:dev:no'), 'urn:dev:no');
    assert.equal(wrong.answer.name, '4.03');
    assert.deepEqual([unknown.answer.name, unknown.answer.text], [wrong.answer.name, wrong.answer.text]);
    const reasons = site.gatewayEvents.all
      .filter(({ name }) => name === 'bootstrap.refused')
      .map(({ fields }) => fields.reason);
    assert.deepEqual(reasons, ['wrong proof', 'unknown device']);
    const status = gateway.status();
    assert.equal(status.counts['bootstrap.refused'], 2);
    assert.deepEqual([status.devices.attached, status.outbox.waiting], [0, 0]);
  });

  // conforms: BOO-4
  test('a repeated request, from the same or another sender, gets a new challenge and no secrets', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([id]);
    await using peer = await CoapPeer.open();
    await using other = await CoapPeer.open();
    const { request, answer } = await prove(peer, gateway.coapPort, secrets.factory(id));
    assert.equal(answer.name, '2.04');
    for (const sender of [peer, other]) {
      const again = await sender.call(gateway.coapPort, request);
      assert.equal(again.name, '4.01');
      assert.doesNotMatch(again.text, /SyncML/);
    }
    assert.equal(gateway.status().counts['bootstrap.stale-challenge'], 2);
  });

  test('requests without ID, with a malformed proof, with a forged challenge or by GET are refused', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([id]);
    await using peer = await CoapPeer.open();
    const ask = { method: Code.POST, path: bootstrap };
    const { port } = { port: gateway.coapPort };
    assert.equal((await peer.call(port, ask)).name, '4.00');
    const { options } = await peer.call(port, { ...ask, query: [`id=${id}`] });
    const echo = optionValue(options, Option.Echo)!;
    const garbage = {
      ...ask,
      query: [`id=${id}`],
      options: [opaque(Option.Echo, echo)],
      payload: Buffer.alloc(40, 0xff),
    };
    const shortNonce = encodeProof({ deviceNonce: Buffer.alloc(7), mac: Buffer.alloc(32) });
    for (const payload of [garbage.payload, Buffer.of(0xa0), Buffer.of(0x80), shortNonce])
      assert.equal((await peer.call(port, { ...garbage, payload })).name, '4.00');
    const forged = { ...garbage, options: [opaque(Option.Echo, randomBytes(18))] };
    assert.equal((await peer.call(port, forged)).name, '4.01');
    assert.equal((await peer.call(port, { method: Code.GET, path: bootstrap })).name, '4.05');
  });

  test('a device that stops after its bootstrap is not attached, and may be bootstrapped again', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([id]);
    await using peer = await CoapPeer.open();
    assert.equal((await prove(peer, gateway.coapPort, secrets.factory(id))).answer.name, '2.04');
    assert.deepEqual([gateway.devices().length, gateway.status().outbox.waiting], [0, 0]);
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    await device.attached;
    assert.equal(gateway.devices().length, 1);
  });

  test('a second device with the same ID is refused while the first one answers', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([]);
    const gateway = await site.gateway([id]);
    const first = site.device(id, gateway, { factory: true });
    await first.start();
    await first.attached;
    const second = site.device(id, gateway, { factory: true });
    await second.start();
    const refused = await site.deviceEvents.until('device.attach-failed');
    assert.match(String(refused.fields.reason), /4\.09.*answers elsewhere/);
    assert.equal(gateway.status().counts['bootstrap.duplicate-id'], 1);
    assert.equal(gateway.devices().length, 1);
  });

  test('a device with a new address and without its state is bootstrapped again if the old address does not answer', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([id]);
    {
      await using first = site.device(id, gateway, { factory: true });
      await first.start();
      await first.attached;
    }
    const second = site.device(id, gateway, { factory: true });
    await second.start();
    await second.attached;
    assert.equal(gateway.devices().length, 1);
    assert.equal(site.gatewayEvents.count('device.attached'), 2);
  });
});

describe('wrong credentials', limit, () => {
  test('a session of a device with the wrong secret for its DM server ends with 401 at both ends', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([id], {
      device: [{ id, 'client-secret': 'quite-another-one', 'server-secret': secrets.deviceServer(id) }],
    });
    const gateway = await site.gateway([]);
    const device = site.device(id, gateway, { server: true });
    await device.start();
    const ended = await site.headendEvents.until('session.failed', { device: id });
    assert.equal(ended.fields.status, 401);
    await site.deviceEvents.until('device.session-ended', { status: 401 });
    assert.deepEqual([gateway.devices(), device.servers], [[], ['dm.example']]);
  });

  test('an alert stays in the outbox when the DM server has the wrong secret for the gateway', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([], {
      gateway: [{ id: 'gw-1', 'client-secret': secrets.gatewayClient, 'server-secret': 'quite-another-one' }],
    });
    const gateway = await site.gateway([id]);
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    const failed = await site.gatewayEvents.until('dm.session-failed');
    assert.match(String(failed.fields.reason), /did not prove itself/);
    assert.equal(gateway.status().outbox.waiting, 1);
  });

  test('a device that is unknown to the DM server is challenged like others, and both ends log that it fails', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([]);
    const gateway = await site.gateway([]);
    const device = site.device(id, gateway, { server: true });
    await device.start();
    await site.deviceEvents.until('device.session-ended', { status: 401 });
    const failed = await site.headendEvents.until('session.failed', { device: id, status: 401 });
    assert.match(String(failed.fields.reason), /no account here/);
  });

  test('a device of a gateway that lost its state drops its account and is bootstrapped again', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-device-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const more = { state: join(folder, 'device.db') };
    let port = 0;
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    {
      const old = await site.gateway([id], { gateway: { id: 'gw-1', state: ':memory:' } });
      await using device = site.device(id, old, { factory: true, more });
      await device.start();
      await device.attached;
      port = old.coapPort;
      await old[Symbol.asyncDispose]();
    }
    await using fresh = new Site(broker.url);
    const gateway = await fresh.gateway([id], { coap: { port, leisure: 50, 'insecure-plain-coap': true } });
    await using device = fresh.device(id, gateway, { factory: true, more });
    await device.start();
    await device.attached;
    assert.equal(gateway.devices().length, 1);
    await fresh.deviceEvents.until('device.account-dropped');
    await fresh.gatewayEvents.until('session.unknown-device', { device: id });
  });
});

describe('the tunnel', limit, () => {
  const path = (server: string) => ['dm', 't', server];

  test('an unknown ServerID gets 4.04, an event and a count; other wrong requests get their codes', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([]);
    await using peer = await CoapPeer.open();
    const request = {
      method: Code.POST,
      query: [`id=${id}`],
      contentFormat: 65001,
      payload: Buffer.from('x'),
    };
    assert.equal(
      (await peer.call(gateway.coapPort, { ...request, path: path('evil.example') })).name,
      '4.04',
    );
    await site.gatewayEvents.until('tunnel.unknown-server', { server: 'evil.example' });
    assert.equal(gateway.status().counts['tunnel.unknown-server'], 1);
    const known = path('dm.example');
    assert.equal((await peer.call(gateway.coapPort, { ...request, path: known, query: [] })).name, '4.00');
    assert.equal(
      (await peer.call(gateway.coapPort, { ...request, path: known, contentFormat: 0 })).name,
      '4.15',
    );
    assert.equal((await peer.call(gateway.coapPort, { ...request, path: [...known, 'x'] })).name, '4.04');
  });

  // conforms: GW-9
  for (const [name, startBroker] of [
    ['aedes', startAedes],
    ['mosquitto', startMosquitto],
  ] as const)
    test(`any bytes pass through ${name} unchanged in both directions`, async () => {
      await using broker = await startBroker();
      await using site = new Site(broker.url);
      const gateway = await site.gateway([]);
      await using peer = await CoapPeer.open();
      // The DM server's side is written here from docs/bindings.md, without Postern's code.
      const server = await connectAsync(broker.url, { protocolVersion: name === 'aedes' ? 4 : 5 });
      const encoder = new Encoder({ useRecords: false, mapsAsObjects: false, tagUint8Array: false });
      const seen: Buffer[] = [];
      const answers = [randomBytes(30), randomBytes(5000), Buffer.from('plain')];
      server.on('message', (_topic, payload) => {
        const envelope = decodeCbor(payload) as Record<string, Uint8Array>;
        seen.push(Buffer.from(envelope['9']!));
        assert.deepEqual(
          [envelope['1'], envelope['2'], envelope['4'], envelope['5'], envelope['6'], envelope['8']],
          [
            1,
            0,
            id,
            'dm.example',
            'application/vnd.syncml.dm+wbxml',
            { 'x-syncml-hmac': 'algorithm=MD5, mac=x' },
          ],
        );
        const answer = new Map<number, unknown>([
          [1, 1],
          [2, 1],
          [3, Buffer.from(envelope['3']!)],
          [6, 'application/vnd.syncml.dm+wbxml'],
          [8, new Map([['x-syncml-hmac', 'back']])],
          [9, answers[seen.length - 1]],
          [99, 'of a later version'],
        ]);
        server.publish('dm/gw-1/down', encoder.encode(answer), { qos: 1 });
      });
      await server.subscribeAsync('dm/gw-1/up', { qos: 1 });
      const sent = [randomBytes(1), randomBytes(4096), randomBytes(16_000)];
      for (const [round, payload] of sent.entries()) {
        const answer = await peer.call(gateway.coapPort, {
          method: Code.POST,
          path: path('dm.example'),
          query: [`id=${id}`],
          contentFormat: 65002,
          options: [opaque(Option.SyncmlHmac, Buffer.from('algorithm=MD5, mac=x'))],
          payload,
        });
        assert.equal(answer.name, '2.04');
        assert.deepEqual(seen[round], payload);
        assert.deepEqual(Buffer.from(answer.payload), answers[round]);
        assert.equal(Buffer.from(optionValue(answer.options, Option.SyncmlHmac)!).toString(), 'back');
      }
      await server.endAsync();
    });

  test('a DM server that does not answer is 5.04', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], { tunnel: { timeout: 1 } });
    await using peer = await CoapPeer.open();
    const request = {
      method: Code.POST,
      path: path('dm.example'),
      query: [`id=${id}`],
      contentFormat: 65001,
      payload: Buffer.from('x'),
    };
    assert.equal((await peer.call(gateway.coapPort, request)).name, '5.04');
    await site.gatewayEvents.until('tunnel.failed', { code: 'timeout' });
    assert.equal(gateway.status().counts['tunnel.failed'], 1);
  });
});

describe('the uplink', limit, () => {
  // conforms: GW-5
  test('a device attaches without an uplink; its alert survives a restart and is delivered later', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-gateway-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const state = join(folder, 'state.db');
    await using broker = await startAedes();
    await broker.stop();
    {
      await using site = new Site(broker.url);
      const gateway = await site.gateway([id], { gateway: { id: 'gw-1', state } }, false);
      await site.gatewayEvents.until('mqtt.connect-failed');
      const device = site.device(id, gateway, { factory: true });
      await device.start();
      await device.attached;
      assert.equal(gateway.status().outbox.waiting, 1);
    }
    await broker.restart();
    await using site = new Site(broker.url);
    await site.headend([]);
    const gateway = await site.gateway([id], { gateway: { id: 'gw-1', state } });
    await site.gatewayEvents.until('alert.delivered', { device: id });
    await site.headendEvents.until('alert.device-attach', { device: id });
    assert.deepEqual([gateway.devices().length, gateway.status().outbox.waiting], [1, 0]);
  });

  test('a broker that stops during a session: requests get 5.03 with Max-Age, and a later session works', async () => {
    await using broker = await startMosquitto();
    await using site = new Site(broker.url);
    const headend = await site.headend([id], { policy: { 'assisted-bootstrap': false } });
    const gateway = await site.gateway([], { tunnel: { timeout: 2 } });
    const device = site.device(id, gateway, { server: true });
    await device.start();
    await site.deviceEvents.until('device.session-ended', { status: 200 });
    const working = headend.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }]);
    working.catch(() => {});
    const began = await site.gatewayEvents.until('notification.delivered');
    assert.equal(began.fields.device, id);
    await broker.stop();
    await site.gatewayEvents.until('mqtt.disconnected');
    const down = await CoapPeer.open();
    const request = {
      method: Code.POST,
      path: ['dm', 't', 'dm.example'],
      query: ['id=urn:dev:other'],
      contentFormat: 65001,
      payload: Buffer.from('x'),
    };
    const refused = await down.call(gateway.coapPort, request);
    await down[Symbol.asyncDispose]();
    assert.equal(refused.name, '5.03');
    assert.ok(optionValue(refused.options, Option.MaxAge));
    assert.equal(gateway.status().uplink.connected, false);
    const back = [site.gatewayEvents.next('mqtt.connected'), site.headendEvents.next('mqtt.connected')];
    await broker.restart();
    await Promise.all(back);
    await Promise.allSettled([working]);
    const outcomes = await headend.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }]);
    assert.equal(outcomes[0]?.status, 200);
  });

  test('the Last Will reports a gateway whose connection broke, and its return is reported', async () => {
    await using broker = await startMosquitto();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    await site.gateway([]);
    await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
    assert.equal(headend.gateways()[0]?.online, true);
    // For a second client with the same ID, the broker closes the connection of the first one, which then has no orderly end.
    const offline = site.headendEvents.next('gateway.state', { online: false });
    const twin = await connectAsync(broker.url, { clientId: 'gw-1', protocolVersion: 5 });
    await offline;
    const online = site.headendEvents.next('gateway.state', { online: true });
    await twin.endAsync();
    await online;
  });

  test('a gateway does not start with a CoAP port in use, be it of plain CoAP or of DTLS', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([]);
    await assert.rejects(
      site.gateway([], { coap: { port: gateway.coapPort, 'insecure-plain-coap': true } }),
      { code: 'configuration', message: /is in use/ },
    );
    const secure = await site.gateway([], { coap: { port: 0 } });
    await assert.rejects(site.gateway([], { coap: { port: 0 }, coaps: { port: secure.coapsPort } }), {
      code: 'configuration',
      message: /coaps\.port: .*is in use/,
    });
  });
});

test('a repeated envelope gets the same answer again, and starts no second session', limit, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  await site.headend([id]);
  const gateway = await site.gateway([]);
  const device = site.device(id, gateway, { server: true });
  const spy = await connectAsync(broker.url, { protocolVersion: 4 });
  const heard: string[] = [];
  const twice = Promise.withResolvers<void>();
  spy.on('message', (topic, payload) => {
    const envelope = decodeCbor(payload) as Record<string, Uint8Array>;
    if (topic === 'dm/gw-1/up' && heard.length === 0) {
      heard.push(Buffer.from(envelope['3']!).toString('hex'));
      spy.publish(topic, payload, { qos: 1 });
    } else if (topic === 'dm/gw-1/down' && Buffer.from(envelope['3']!).toString('hex') === heard[0]) {
      heard.push(Buffer.from(envelope['9']!).toString('hex'));
      if (heard.length === 3) twice.resolve();
    }
  });
  await spy.subscribeAsync(['dm/gw-1/up', 'dm/gw-1/down'], { qos: 1 });
  await device.start();
  await device.attached;
  await twice.promise;
  assert.equal(heard[1], heard[2]);
  assert.equal(
    site.headendEvents.all.filter(({ name, fields }) => name === 'session.started' && fields.device === id)
      .length,
    1,
  );
  await spy.endAsync();
});
