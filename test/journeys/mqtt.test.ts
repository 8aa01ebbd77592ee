import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { connectAsync, type IPublishPacket, type MqttClient } from 'mqtt';
import { Code } from '../../src/wire/coap/codes.ts';
import { encodeNotification } from '../../src/wire/syncml/notification.ts';
import { decodeEnvelope, encodeEnvelope } from '../../src/wire/tunnel/envelope.ts';
import { encodeState } from '../../src/wire/tunnel/gateway-state.ts';
import { startMosquitto } from '../peers/brokers.ts';
import { newKey, selfSigned } from '../peers/certificates.ts';
import { CoapPeer } from '../peers/coap-peer.ts';
import { Site } from './site.ts';

const limit = { timeout: 60_000 };
const id = 'urn:dev:ops:1';
const up = {
  method: Code.POST,
  path: ['dm', 't', 'dm.example'],
  query: [`id=${id}`],
  contentFormat: 65001,
  payload: Buffer.from('package'),
};

/** The other end of the binding, by hand. */
async function connect(url: string): Promise<AsyncDisposable & { readonly client: MqttClient }> {
  const client = await connectAsync(url, { protocolVersion: 5 });
  return { client, [Symbol.asyncDispose]: () => client.endAsync(true) };
}

describe('over MQTT 5', limit, () => {
  test('requests have Message Expiry and Response Topic, and go to the route of the previous answer only', async () => {
    await using broker = await startMosquitto();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([]);
    await using peer = await CoapPeer.open();
    await using server = await connect(broker.url);
    const seen: [string, number | undefined, string | undefined][] = [];
    const routes = ['worker-7', undefined, 'no/level'];
    server.client.on('message', (topic, payload, packet: IPublishPacket) => {
      const { correlation } = decodeEnvelope(payload);
      seen.push([topic, packet.properties?.messageExpiryInterval, packet.properties?.responseTopic]);
      const route = routes[seen.length - 1];
      server.client.publish(
        'dm/gw-1/down',
        encodeEnvelope({
          kind: 1,
          correlation,
          body: Buffer.from('x'),
          ...(route !== undefined && { route }),
        }),
        { qos: 1 },
      );
    });
    await server.client.subscribeAsync(['dm/gw-1/up', 'dm/gw-1/up/+'], { qos: 1 });
    for (let i = 0; i < 4; i++) assert.equal((await peer.call(gateway.coapPort, up)).name, '2.04');
    assert.deepEqual(
      seen.map(([topic]) => topic),
      ['dm/gw-1/up', 'dm/gw-1/up/worker-7', 'dm/gw-1/up', 'dm/gw-1/up'],
    );
    assert.deepEqual(seen[0]?.slice(1), [60, 'dm/gw-1/down']);
  });

  test('a body above the maximum packet size of the broker gets 4.13 and is not sent', async () => {
    await using broker = await startMosquitto(['allow_anonymous true', 'max_packet_size 4000']);
    await using site = new Site(broker.url);
    const gateway = await site.gateway([]);
    await using peer = await CoapPeer.open();
    const answer = await peer.call(gateway.coapPort, { ...up, payload: Buffer.alloc(5000, 'x') });
    assert.equal(answer.name, '4.13');
    assert.equal(gateway.status().uplink.connected, true, 'the broker did not have to end the connection');
  });

  test('a notification that was published while the gateway was offline is answered when it returns', async () => {
    await using broker = await startMosquitto();
    await using site = new Site(broker.url);
    const first = await site.gateway([]);
    await first[Symbol.asyncDispose]();
    await using server = await connect(broker.url);
    const outcome = Promise.withResolvers<number | undefined>();
    server.client.on('message', (_topic, payload) => outcome.resolve(decodeEnvelope(payload).status));
    await server.client.subscribeAsync('dm/gw-1/up/me', { qos: 1 });
    const package0 = encodeNotification(
      { uiMode: 0, serverInitiated: true, sessionId: 7, serverId: 'dm.example' },
      'any secret',
      new Uint8Array(16),
    );
    const notification = {
      kind: 2,
      correlation: Buffer.alloc(8, 7),
      device: id,
      server: 'dm.example',
      body: package0,
      route: 'me',
    } as const;
    await server.client.publishAsync('dm/gw-1/down', encodeEnvelope(notification), { qos: 1 });
    await site.gateway([]);
    assert.equal(await outcome.promise, 202, 'the device was never heard, and has to come by itself');
  });
});

test(
  'when a TLS file goes, the gateway serves its devices, says why it is not connected, and tries again',
  limit,
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-tls-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const [cert, key] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
    selfSigned('broker', { cert, key });
    await using site = new Site('mqtts://127.0.0.1:1');
    const gateway = await site.gateway([], { mqtt: { url: 'mqtts://127.0.0.1:1', ca: cert } }, false);
    await site.gatewayEvents.until('mqtt.connect-failed');
    rmSync(cert);
    const said = `mqtt.ca: ${cert} cannot be read (ENOENT)`;
    await site.gatewayEvents.until('mqtt.connect-failed', { reason: said });
    const { connected, reason, retryInSeconds = 0 } = gateway.status().uplink;
    assert.deepEqual([connected, reason, retryInSeconds > 0], [false, said, true]);
    await using peer = await CoapPeer.open();
    const answer = await peer.call(gateway.coapPort, up);
    assert.deepEqual([answer.name, answer.text], ['5.03', 'the uplink is down']);
  },
);

test(
  'what a gateway reports as wrong is shown by the head-end, is an event once, and outlives the Last Will',
  limit,
  async () => {
    await using broker = await startMosquitto();
    await using site = new Site(broker.url);
    const headend = await site.headend([]);
    await using gateway = await connect(broker.url);
    const publish = async (online: boolean, problem?: string) => {
      const before = site.headendEvents.count('gateway.state');
      const state = {
        online,
        software: '1',
        bootId: Buffer.alloc(8),
        ...(problem !== undefined && { problem }),
      };
      await gateway.client.publishAsync('dm/gw-1/state', encodeState(state), { qos: 1 });
      while (site.headendEvents.count('gateway.state') === before) await new Promise(setImmediate);
      return headend.gateways()[0]?.problem;
    };
    assert.equal(await publish(true), undefined);
    assert.equal(await publish(true, 'a clone'), 'a clone');
    assert.equal(await publish(false), 'a clone');
    assert.equal(await publish(true, 'a clone'), 'a clone');
    assert.equal(await publish(true), undefined);
    const told = site.headendEvents.all.filter(({ name }) => name === 'gateway.problem');
    assert.deepEqual(
      told.map(({ fields }) => fields),
      [{ gateway: 'gw-1', reason: 'a clone' }],
    );
  },
);

test(
  'TLS with client certificates, and a broker rule that confines each gateway to its topics',
  limit,
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-tls-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = (name: string) => join(folder, name);
    const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe', cwd: folder });
    selfSigned('test authority', { key: file('ca.key'), cert: file('ca.pem') });
    for (const name of ['localhost', 'gw-1', 'dm.example']) {
      openssl('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
      writeFileSync(file(`${name}.ext`), name === 'localhost' ? 'subjectAltName=IP:127.0.0.1' : '');
      openssl(
        'x509',
        '-req',
        '-in',
        `${name}.csr`,
        '-CA',
        'ca.pem',
        '-CAkey',
        'ca.key',
        '-CAcreateserial',
        '-days',
        '2',
        '-out',
        `${name}.pem`,
        '-extfile',
        `${name}.ext`,
      );
    }
    writeFileSync(file('acl'), 'pattern readwrite dm/%u/#\nuser dm.example\ntopic readwrite dm/#\n');
    execFileSync('chmod', ['-R', 'a+rX', folder]);
    await using broker = await startMosquitto([
      `cafile ${file('ca.pem')}`,
      `certfile ${file('localhost.pem')}`,
      `keyfile ${file('localhost.key')}`,
      'require_certificate true',
      'use_identity_as_username true',
      `acl_file ${file('acl')}`,
      'user root',
    ]);
    const url = broker.url.replace('mqtt:', 'mqtts:');
    const tls = (name: string) => ({
      mqtt: { url, ca: file('ca.pem'), cert: file(`${name}.pem`), key: file(`${name}.key`) },
    });
    await using site = new Site(url);
    await site.headend([], tls('dm.example'));
    const gateway = await site.gateway([id], tls('gw-1'));
    const device = site.device(id, gateway, { factory: true });
    await device.start();
    await device.attached;
    await site.headendEvents.until('alert.device-attach', { device: id });

    await using stranger = new Site(url);
    const alone = await stranger.gateway([], { mqtt: { url, ca: file('ca.pem') } }, false);
    const failed = await stranger.gatewayEvents.until('mqtt.connect-failed');
    assert.match(String(failed.fields.reason), /certificate|closed|alert/i);
    assert.equal(alone.status().uplink.connected, false);
  },
);
