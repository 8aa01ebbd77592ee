import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, test } from 'node:test';
import { noEvents } from '../../src/base/events.ts';
import { Relay } from '../../src/headend/relay.ts';
import { encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { EventRecorder } from '../event-recorder.ts';
import { Site, secrets } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';
import { firstPackage } from '../wire/syncml/messages.ts';

const limit = { timeout: 60_000 };
const id = 'urn:dev:ops:1';

async function listen(listener: RequestListener) {
  const server = createServer(listener);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

const up = (body: Uint8Array = encodeMessage(firstPackage, MediaType.Xml)) => ({
  gateway: 'gw-1',
  envelope: {
    kind: 0,
    correlation: Buffer.alloc(8),
    device: id,
    server: 'dm.example',
    contentType: MediaType.Xml,
    headers: { 'x-syncml-hmac': 'up' },
    body,
  } as const,
});

test(
  'a device has a session with an HTTP-only DM server through gateway, broker and relay',
  limit,
  async () => {
    await using broker = await startAedes();
    // Another gateway's HTTP binding is a DM server of HTTP: nothing of MQTT is between it and the relay.
    await using far = new Site(broker.url);
    const server = await far.gateway([], {
      gateway: { id: 'far', state: ':memory:' },
      http: {
        port: 0,
        'server-id': 'dm.example',
        device: [
          { id, 'client-secret': secrets.deviceClient(id), 'server-secret': secrets.deviceServer(id) },
        ],
      },
    });
    await using site = new Site(broker.url);
    await site.headend([], { relay: { url: `${server.httpUrl}/dm` } });
    const gateway = await site.gateway([id]);
    for (const encoding of ['xml', 'wbxml']) {
      await using device = site.device(id, gateway, { factory: true, server: true, more: { encoding } });
      const ended = site.deviceEvents.next('device.session-ended', { server: 'dm.example' });
      await device.start();
      assert.equal((await ended).fields.status, 200, encoding);
    }
    const attached = await far.gatewayEvents.until('device.attached', { device: id });
    assert.equal(attached.fields.bootstrap, 'manual');
  },
);

describe('the relay', limit, () => {
  test('passes the MAC on in both directions, and follows RespURI on the same server only', async () => {
    const paths: string[] = [];
    const events = new EventRecorder();
    const answers = ['/dm?sid=7', 'http://elsewhere.example/dm', undefined];
    await using server = await listen((request, response) => {
      paths.push(request.url ?? '');
      const respUri = answers[paths.length - 1];
      const message = { ...firstPackage, header: { ...firstPackage.header, ...(respUri && { respUri }) } };
      assert.equal(request.headers['x-syncml-hmac'], 'up');
      response.writeHead(200, { 'content-type': MediaType.Xml, 'x-syncml-hmac': 'down' });
      response.end(encodeMessage(message, MediaType.Xml));
    });
    const relay = new Relay({ url: `${server.url}/dm`, timeout: 5000, events });
    const message = (msgId: number) =>
      up(encodeMessage({ ...firstPackage, header: { ...firstPackage.header, msgId } }, MediaType.Xml));
    for (const msgId of [1, 2, 3, 1]) {
      const { body, headers, contentType } = await relay.forward(message(msgId));
      assert.deepEqual([headers?.['x-syncml-hmac'], contentType], ['down', MediaType.Xml]);
      assert.ok(body && body.length > 0);
    }
    assert.deepEqual(paths, ['/dm', '/dm?sid=7', '/dm?sid=7', '/dm'], 'MsgID 1 begins a session anew');
    assert.equal(events.count('relay.foreign-uri'), 1);
  });

  test('remembers the RespURIs of a bounded number of sessions: the one set longest ago is dropped', async () => {
    const paths: string[] = [];
    await using server = await listen((request, response) => {
      paths.push(request.url ?? '');
      const header = { ...firstPackage.header, respUri: `/dm?sid=${paths.length}` };
      response.writeHead(200, { 'content-type': MediaType.Xml });
      response.end(encodeMessage({ ...firstPackage, header }, MediaType.Xml));
    });
    const relay = new Relay({ url: `${server.url}/dm`, timeout: 5000, events: noEvents, sessions: 8 });
    const send = (sessionId: string, msgId: number) => {
      const header = { ...firstPackage.header, sessionId, msgId };
      return relay.forward(up(encodeMessage({ ...firstPackage, header }, MediaType.Xml)));
    };
    for (let number = 1; number <= 9; number++) await send(String(number), 1);
    for (const sessionId of ['2', '9', '1']) await send(sessionId, 2);
    assert.deepEqual(paths.slice(9), ['/dm?sid=2', '/dm?sid=9', '/dm'], 'the first of nine is forgotten');
  });

  test('passes on a body that it cannot read', async () => {
    const heard: Buffer[] = [];
    await using server = await listen((request, response) => {
      request.on('data', (chunk: Buffer) => heard.push(chunk)).on('end', () => response.end('sealed'));
    });
    const relay = new Relay({ url: server.url, timeout: 5000, events: noEvents });
    const { body } = await relay.forward(up(Buffer.from([1, 2, 3])));
    assert.deepEqual([Buffer.concat(heard), String(body)], [Buffer.from([1, 2, 3]), 'sealed']);
  });

  for (const [status, code] of [
    [401, 'unauthorized'],
    [403, 'forbidden'],
    [404, 'notFound'],
    [415, 'unsupportedFormat'],
    [500, 'unavailable'],
    [302, 'unavailable'],
  ] as const)
    test(`reports status ${status} of the server as ${code}`, async () => {
      await using server = await listen((_request, response) => {
        response.writeHead(status, { location: 'http://127.0.0.1:1/' }).end();
      });
      await assert.rejects(new Relay({ url: server.url, timeout: 5000, events: noEvents }).forward(up()), {
        code,
      });
    });

  test('reports a silent server as timeout, an unreachable one as unavailable, and a too large answer as tooLarge', async () => {
    await using silent = await listen(() => {});
    await assert.rejects(new Relay({ url: silent.url, timeout: 50, events: noEvents }).forward(up()), {
      code: 'timeout',
    });
    await assert.rejects(
      new Relay({ url: 'http://127.0.0.1:1', timeout: 5000, events: noEvents }).forward(up()),
      { code: 'unavailable' },
    );
    await using talkative = await listen((_request, response) => response.end(Buffer.alloc(300_000)));
    await assert.rejects(new Relay({ url: talkative.url, timeout: 5000, events: noEvents }).forward(up()), {
      code: 'tooLarge',
    });
  });
});
