import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { connectAsync } from 'mqtt';
import { MediaType } from '../../src/wire/syncml/codec.ts';
import { encodeNotification, resyncNonces } from '../../src/wire/syncml/notification.ts';
import { startAedes } from '../peers/brokers.ts';
import { StockClient } from '../peers/stock-client.ts';
import { Site } from './site.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 120_000 };

/**
 * A site with HTTP where the DM server bootstraps a device through the tunnel, and what a listener on the plain hop has read. The
 * gateway passes packages on untouched, so the broker has the same octets; a package may be divided into blocks on the hop alone.
 */
async function overheard(site: Site, brokerUrl: string, more: object) {
  const heard: string[] = [];
  const listener = await connectAsync(brokerUrl, { protocolVersion: 4 });
  listener.on('message', (_topic, payload) => heard.push(payload.toString('latin1')));
  await listener.subscribeAsync('dm/gw-1/#');
  await site.headend([id]);
  const gateway = await site.gateway([], { http: { port: 0 }, ...more });
  const device = site.device(id, gateway, { server: true, multicast: true });
  await device.start();
  await device.attached;
  await site.headendEvents.until('alert.device-attach', { device: id, bootstrap: 'server' });
  await listener.endAsync();
  const text = heard.join('\n').replaceAll('&lt;', '<').replaceAll('&gt;', '>');
  // The secrets of the account: that of the client first.
  const secrets = [...text.matchAll(/<NodeName>AAuthSecret<\/NodeName>.*?<Value>([^<]*)<\/Value>/gs)].map(
    ([, value]) => value!,
  );
  return { gateway, secrets };
}

const stockClient = (url: string | undefined, [password = '', serverPassword = '']: readonly string[]) =>
  new StockClient({
    ...{ deviceId: id, serverId: 'gw-1', user: id, auth: 'md5', mediaType: MediaType.Xml },
    url: `${url}/dm`,
    password,
    serverPassword,
  });

test('what was read of an account on a plain hop opens nothing over HTTP', limit, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const { gateway, secrets } = await overheard(site, broker.url, { coap: { port: 0, leisure: 50 } });
  assert.equal(new Set(secrets).size, 2, 'secrets of both sides, and no key');
  await using thief = stockClient(gateway.httpUrl, secrets);
  assert.equal(await thief.session('1'), 403);
  const { fields } = await site.gatewayEvents.until('session.failed', { device: id, status: 403 });
  assert.match(String(fields.reason), /key for DTLS or OSCORE/);
  assert.equal(gateway.devices()[0]?.protocol, 'OMA-DM');
  // The device itself goes on, by its key.
  const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 20_000);
  assert.equal(outcome?.status, 200);
});

/** The UDP ports of IPv4 that this process holds. */
function ownPorts(): number[] {
  const sockets = new Set(
    readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1] ?? [];
      } catch {
        return [];
      }
    }),
  );
  return readFileSync('/proc/net/udp', 'utf8')
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => sockets.has(fields[9] ?? ''))
    .map((fields) => Number.parseInt(fields[1]?.split(':')[1] ?? '', 16));
}

test('a Package #0 that is forged by an overheard secret moves the device to nothing', limit, async () => {
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  const { gateway, secrets } = await overheard(site, broker.url, { coap: { port: 0, leisure: 50 } });
  const notified = () => site.deviceEvents.count('device.notified');
  const before = notified();
  const thief = createSocket('udp4');
  // With a nonce that a server uses which has lost the right one, the secret alone makes the digest.
  for (const [at, nonce] of resyncNonces.entries()) {
    const request = { uiMode: 1, serverInitiated: true, sessionId: 7 + at, serverId: 'gw-1' } as const;
    const package0 = encodeNotification(request, secrets[1] ?? '', nonce);
    const head = Buffer.from([0x41, 0x02, 0x77, at, at, 0xb3, ...Buffer.from('dmn'), 0xff]);
    const refused = site.deviceEvents.next('device.notification-refused', { server: 'gw-1' });
    for (const port of ownPorts()) thief.send(Buffer.concat([head, package0]), port, '127.0.0.1');
    await refused;
  }
  thief.close();
  assert.equal(notified(), before);
  // The gateway's own, through the association, moves it.
  const [outcome] = await gateway.manage(id, [{ name: 'Get', uri: './DevInfo/Man' }], 20_000);
  assert.equal(outcome?.status, 200);
  assert.ok(notified() > before);
});
