import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { createServer } from 'coap';
import { hashedName } from '../../src/base/hashed-name.ts';
import type { Operation } from '../../src/dm/server-session.ts';
import { startAedes } from '../peers/brokers.ts';
import { gatewayConfig, Site } from './site.ts';

const id = 'urn:dev:thing:1';

/** A device that speaks CoAP by the package `coap`: two resources that can be written, an actuator, and one that is octets. */
async function thing(
  links = '</sensors/temp>;rt="t",</name>,</led>;if="a",</raw>,</a%20b>,<coap://elsewhere/x>',
) {
  const values = new Map([
    ['/sensors/temp', '21.5'],
    ['/name', 'hall'],
    ['/a b', 'spaced'],
  ]);
  const heard: string[] = [];
  let isDeaf = false;
  const server = createServer((request, response) => {
    if (isDeaf) return;
    const { method, url } = request;
    heard.push(`${method} ${url} ${request.payload}`);
    if (url === '/.well-known/core') {
      response.setOption('Content-Format', 'application/link-format');
      response.end(links);
    } else if (url === '/raw' && method === 'GET') {
      response.setOption('Content-Format', 'application/octet-stream');
      response.end(Buffer.from([0, 255, 1]));
    } else if (url === '/led' && method === 'POST') response.end();
    else if (method === 'PUT' && url === '/name' && String(request.payload) === 'refused') {
      response.code = '4.03';
      response.end();
    } else if (method === 'PUT' && values.has(url)) {
      values.set(url, String(request.payload));
      response.code = '2.04';
      response.end();
    } else if (method === 'GET' && values.has(url)) {
      // A device that leaves the format out.
      if (url !== '/a b') response.setOption('Content-Format', 'text/plain');
      response.end(values.get(url));
    } else {
      response.code = url === '/led' ? '4.05' : '4.04';
      response.end();
    }
  });
  const { promise, resolve } = Promise.withResolvers<number>();
  server.listen(0, '127.0.0.1', () =>
    resolve(Number((server as unknown as { _sock: { address(): { port: number } } })._sock.address().port)),
  );
  const port = await promise;
  return {
    uri: `coap://127.0.0.1:${port}`,
    values,
    heard,
    hush: () => {
      isDeaf = true;
    },
    async [Symbol.asyncDispose](): Promise<void> {
      const closed = once(server, 'close').catch(() => {});
      server.close();
      await closed;
    },
  };
}

const listed = (...uris: readonly string[]) => ({
  'coap-devices': {
    device: uris.map((uri, at) => ({ id: at === 0 ? id : `${id}-${at}`, uri })),
    'insecure-plain-coap': true,
  },
});

const get = (uri: string): Operation => ({ name: 'Get', uri });

describe('adaptation mode: plain CoAP devices', { timeout: 120_000 }, () => {
  test('a device is attached when it answers, and its resources are leaves that are read, written and executed', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await using device = await thing();
    const headend = await site.headend([]);
    const gateway = await site.gateway([], listed(device.uri));
    await site.headendEvents.until('alert.device-attach', { device: id, gateway: 'gw-1' });
    const record = `./GwDeviceInventory/Records/${hashedName(id)}`;
    const seen = await headend.manage('gw-1', [get(`${record}/Protocol`), get(`${record}/Objects`)]);
    assert.deepEqual(
      seen.map(({ results }) => results[0]?.data),
      ['CoAP', '/sensors/temp /name /led /raw /a%20b'],
    );

    const outcomes = await gateway.manage(
      id,
      [
        get('./Coap'),
        get('./Coap/sensors%2Ftemp'),
        get('./Coap/raw'),
        get('./Coap/a%2520b'),
        { name: 'Replace', uri: './Coap/name', data: 'cellar & <more>' },
        { name: 'Replace', uri: './Coap/name', data: 'refused' },
        { name: 'Exec', uri: './Coap/led', data: 'on' },
        get('./Coap/led'),
        get('./Coap/missing'),
        { name: 'Delete', uri: './Coap/name' },
        get('./Coap?list=StructData'),
        get('./DevInfo/DevId'),
      ],
      20_000,
    );
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      [200, 200, 200, 200, 200, 403, 200, 405, 404, 405, 200, 200],
    );
    const found = (at: number) => outcomes[at]?.results.map(({ format, data }) => [format, data]);
    assert.deepEqual(found(0), [['node', 'sensors%2Ftemp/name/led/raw/a%2520b']]);
    assert.deepEqual(found(1), [['chr', '21.5']]);
    assert.deepEqual(found(2), [['bin', Buffer.from([0, 255, 1])]]);
    assert.deepEqual(found(3), [['chr', 'spaced']]);
    assert.equal(device.values.get('/name'), 'cellar & <more>');
    assert.ok(device.heard.includes('POST /led on'));
    // What cannot be read does not hide the rest of the list.
    assert.deepEqual(
      outcomes[10]?.results.map(({ uri }) => uri),
      ['./Coap', './Coap/sensors%2Ftemp', './Coap/name', './Coap/raw', './Coap/a%2520b'],
    );
    assert.deepEqual(found(11), [['chr', id]]);

    const [atomic] = await gateway.manage(
      id,
      [
        {
          name: 'Atomic',
          operations: [
            { name: 'Replace', uri: './Coap/sensors%2Ftemp', data: '5' },
            { name: 'Replace', uri: './Coap/name', data: 'refused' },
          ],
        },
      ],
      20_000,
    );
    assert.deepEqual([atomic?.status, device.values.get('/sensors/temp')], [507, '21.5']);
  });

  test('a device that lies about its resources is not attached; one that falls silent gets 408 and no further command', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await using liar = await thing('</a>;rt="no end');
    await using device = await thing();
    await site.headend([]);
    const gateway = await site.gateway([], listed(liar.uri, device.uri));
    const attached = `${id}-1`;
    await site.headendEvents.until('alert.device-attach', { device: attached });
    const { fields } = await site.gatewayEvents.until('background.failed', { work: 'registration' });
    assert.match(String(fields.reason), new RegExp(`^${id} at ${liar.uri}: `));
    await assert.rejects(gateway.manage(id, [get('./Coap')], 5000), { code: 'notFound' });
    device.hush();
    const outcomes = await gateway
      .manage(attached, [get('./Coap'), get('./Coap/name')], 2500)
      .catch((thrown: { code: string }) => thrown.code);
    assert.ok(
      outcomes === 'timeout' || (Array.isArray(outcomes) && outcomes.every(({ status }) => status === 408)),
      JSON.stringify(outcomes),
    );
  });

  test('after a restart a device is still there; one that is no longer listed is detached', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-things-'));
    try {
      await using broker = await startAedes();
      await using device = await thing();
      const state = { gateway: { id: 'gw-1', state: join(folder, 'state.db') } };
      {
        await using site = new Site(broker.url);
        await site.headend([]);
        await site.gateway([], { ...state, ...listed(device.uri) });
        await site.headendEvents.until('alert.device-attach', { device: id });
      }
      {
        await using site = new Site(broker.url);
        await site.headend([]);
        const gateway = await site.gateway([], { ...state, ...listed(device.uri) });
        const [outcome] = await gateway.manage(id, [get('./Coap/name')], 20_000);
        assert.equal(outcome?.results[0]?.data, 'hall');
      }
      await using site = new Site(broker.url);
      await site.headend([]);
      await site.gateway([], { ...state, 'coap-devices': { device: [], 'insecure-plain-coap': true } });
      await site.headendEvents.until('alert.device-detach', { device: id });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('plain CoAP must be allowed by name, and a device has an IP address and one list', () => {
    const check = (tables: object) => gatewayConfig('mqtt://127.0.0.1', [id], tables as never);
    const devices = (uri: string, more: object = { 'insecure-plain-coap': true }) => ({
      'coap-devices': { device: [{ id: `${id}-2`, uri }], ...more },
    });
    assert.ok(check(devices('coap://127.0.0.1:5683/base')));
    assert.ok(check(devices('coap://[2001:db8::7]')));
    assert.throws(() => check(devices('coap://127.0.0.1', {})), /insecure-plain-coap/);
    assert.throws(
      () => check(devices('coap://127.0.0.1', { 'insecure-plain-coap': false })),
      /insecure-plain-coap/,
    );
    assert.throws(() => check(devices('coap://thing.example')), /IP address/);
    assert.throws(() => check(devices('coaps://127.0.0.1')), /IP address/);
    assert.throws(() => check(listed('coap://127.0.0.1')), /another list/);
  });
});
