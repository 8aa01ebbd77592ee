import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { asPosternError } from '../../src/base/errors.ts';
import { askGateway } from '../../src/gateway/console/admin-api.ts';
import { HeadendApi } from '../../src/headend/api.ts';
import { routes } from '../../src/headend/api-routes.ts';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { paths } from '../../src/wire/resources.ts';
import { firstMessage } from '../attack/attacker.ts';
import { attacks } from '../attack/attacks.ts';
import { ServiceProcess } from '../cli/service-process.ts';
import { Site } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';
import { CoapPeer } from '../peers/coap-peer.ts';

const page = readFileSync(fileURLToPath(new URL('../../docs/security.md', import.meta.url)), 'utf8');
const limit = { timeout: 60_000 };

/** The first column of the table below a heading. */
function rowsOf(heading: string): string[] {
  const [, below = ''] = page.split(`## ${heading}\n`);
  const [section = ''] = below.split('\n## ');
  return [...section.matchAll(/^\| (.+?) \|/gm)].map(([, cell]) => cell!).slice(1);
}

type Call = Parameters<CoapPeer['call']>[1];
const xml = { contentFormat: ContentFormat.SyncmlXml };
const post = (path: string, more: Partial<Call> = {}): Call => ({
  method: Code.POST,
  path: path.slice(1).split('/'),
  ...more,
});
const get = (path: string): Call => ({ method: Code.GET, path: path.slice(1).split('/') });
const first = (device: string) => ({ ...xml, payload: firstMessage(device, '1', 1) });
const tunnel = (query: readonly string[], device: string) =>
  post('/dm/t/dm.example', {
    query,
    ...xml,
    payload: firstMessage(device, '1', 1, { server: 'dm.example' }),
  });

const known = 'urn:dev:ops:1';
const attached = 'urn:dev:ops:2';

/** What somebody gets who has proved nothing, by row of the table: requests, and their codes. */
const asStranger: Readonly<Record<string, readonly (readonly [Call, string | RegExp])[]>> = {
  '`/.well-known/core`, `/gw/status`': [
    [get('/.well-known/core'), '2.05'],
    [get('/gw/status'), '2.05'],
  ],
  '`/dm/bs`': [
    [post('/dm/bs', { query: [`id=${known}`] }), '4.01'],
    [post('/dm/bs', { query: ['id=urn:dev:ops:none'] }), '4.01'],
  ],
  '`/dm` (CoAP, HTTP)': [
    [post('/dm', first(attached)), '2.04'],
    [post('/dm', first('urn:dev:ops:none')), '2.04'],
  ],
  '`/dm/t/{ServerID}`': [
    [tunnel(['id=urn:other:none'], 'urn:other:none'), '4.03'],
    [post('/dm/t/other.example', { query: [`id=${attached}`], ...first(attached) }), '4.04'],
  ],
  '`/dm/t/…?via=`': [[tunnel([`id=${attached}`, 'via=gw-2'], attached), '5.03']],
  "`/dm/t/…?id=` with the gateway's own name": [[tunnel(['id=gw-1'], 'gw-1'), '4.03']],
  '`/img/{name}`': [
    [get('/img/firmware'), '4.01'],
    [get('/img/none'), '4.01'],
  ],
  '`/bs`, `/bspack`, `/rd`': [
    [post('/bs', { query: ['ep=stranger'] }), /^4\.0/],
    [get('/bspack'), /^4\.0/],
    [post('/rd', { query: ['ep=stranger', 'lt=60', 'lwm2m=1.1', 'b=U'] }), /^4\.0/],
  ],
  '`/dp`': [[post('/dp', { payload: Buffer.from('[]'), contentFormat: 110 }), '4.04']],
  // Without a parent there is no such resource; test/journeys/hierarchy.test.ts has one.
  '`/dmn` of a child gateway': [[post('/dmn', { payload: Buffer.of(1) }), '4.04']],
  // Whom the broker lets publish, test/journeys/mqtt.test.ts; alerts, test/headend/routes.test.ts.
  'MQTT `dm/{gateway}/up`': [],
  'Alerts of a gateway in its session': [],
};

describe('the table of who may call each resource', limit, () => {
  test('has each resource of the gateway, and a stranger gets what it says, and nothing by another method', async () => {
    assert.deepEqual(rowsOf('Who may call each resource'), Object.keys(asStranger));
    const table = Object.keys(asStranger).join();
    const own = Object.values(paths).map((path) => (typeof path === 'string' ? path : `/${path.join('/')}`));
    for (const path of own) assert.ok(table.includes(`\`${path}`), `${path} is in the table`);

    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([attached]);
    const gateway = await site.gateway([known, attached], {
      tunnel: { devices: ['urn:dev:ops:*'] },
      lwm2m: { 'insecure-no-security': true, device: [{ id: 'client' }] },
    });
    await site.device(attached, gateway, { factory: true, server: true }).start();
    await site.headendEvents.until('alert.device-attach', { device: attached });
    const before = gateway.devices();
    await using peer = await CoapPeer.open();
    const core = (await peer.call(gateway.coapPort, get('/.well-known/core'))).text;
    for (const [, path = ''] of core.matchAll(/<(\/[^>]*)>/g))
      assert.ok(
        [...own, '/.well-known/core'].some((one) => path === one || path.startsWith(`${one}/`)),
        path,
      );
    for (const [row, requests] of Object.entries(asStranger))
      for (const [call, code] of requests) {
        // From a port of its own each: what one request does to a peer must not hide what the next one gets.
        await using stranger = await CoapPeer.open();
        const answer = await stranger.call(gateway.coapPort, call);
        const what = `${row}: ${call.path?.join('/')} ${call.query}`;
        if (typeof code === 'string') assert.equal(answer.name, code, `${what} ${answer.text}`);
        else assert.match(answer.name, code, `${what} ${answer.text}`);
        for (const method of [Code.GET, Code.POST, Code.PUT, Code.DELETE]) {
          if (method === call.method) continue;
          const { name } = await stranger.call(gateway.coapPort, {
            ...call,
            method,
            payload: Buffer.alloc(0),
          });
          assert.match(name, /^4\.0[0-5]$/, `${what} by ${method}`);
        }
      }
    const facts = (devices: typeof before) => devices.map(({ deviceId, state }) => [deviceId, state]);
    assert.deepEqual(facts(gateway.devices()), facts(before), 'strangers have changed nothing');
  });

  test('each path of the API needs the token, by each method, and an unknown one too', async () => {
    const asked: string[] = [];
    const refuse = new Proxy(
      {},
      { get: (_, key) => (key === 'settled' ? async () => {} : asked.push(String(key))) },
    );
    await using api = new HeadendApi({
      headend: refuse as never,
      events: { emit: () => {} },
      token: { accepts: (token) => token === 'right' },
      settings: { host: '127.0.0.1', port: 0, hosts: [], origins: [] },
    });
    await api.start();
    const status = async (method: string, path: string, headers: Record<string, string>) => {
      const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
      const sent = request(`${api.url}${path.replace(/\{\w+\}/g, 'x')}`, { method, headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      sent.on('error', reject).end();
      return await promise;
    };
    const all = [
      ...routes.map(({ method, path }) => [method, path]),
      ['GET', '/openapi.json'],
      ['GET', '/none'],
    ];
    assert.ok(all.length > 25);
    for (const [method, path] of all as [string, string][])
      assert.equal(await status(method, path, {}), 401, `${method} ${path}`);
    assert.deepEqual(asked, [], 'nothing was looked up');
    assert.equal(await status('GET', '/openapi.json', { authorization: 'Bearer right' }), 200);
    assert.equal(await status('GET', '/none', { authorization: 'Bearer right' }), 404);
  });

  test('has each path of the admin socket, which only its user can open', async () => {
    const rows = rowsOf('Who may call what, on the machine and over HTTP').join();
    const folder = mkdtempSync(join(tmpdir(), 'postern-security-'));
    const socket = join(folder, 'admin.sock');
    const file = join(folder, 'gateway.toml');
    writeFileSync(
      file,
      `[gateway]
id = "gw-1"
state = ":memory:"
admin-socket = "${socket}"
[coap]
port = 0
interfaces = ["lo"]
insecure-plain-coap = true
[mqtt]
url = "mqtt://127.0.0.1:1"
[dm-server]
id = "dm.example"
client-secret = "gateway-client-secret"
server-secret = "gateway-server-secret"
`,
    );
    try {
      await using gateway = ServiceProcess.postern(['gateway', '--config', file]);
      await gateway.until('gateway.started');
      const listed = async (method: 'GET' | 'POST') => {
        for (;;) {
          const asked = askGateway(socket, '/none', method === 'POST' ? {} : undefined);
          const { code, message } = asPosternError(await asked.catch((thrown: unknown) => thrown));
          if (!message.startsWith('paths for ')) {
            assert.equal(code, 'unavailable', message);
            continue;
          }
          return message.replace(/^.*: /, '').split(', ');
        }
      };
      for (const [method, row] of [
        ['GET', '`GET /status`, `/devices`, `/join`, `/update` of the admin socket'],
        ['POST', '`POST /update`, `/update/cancel`, `/backup`, `/join`, `/reset` of the admin socket'],
      ] as const) {
        const found = await listed(method);
        assert.ok(rows.includes(row), row);
        assert.deepEqual(
          [...row.matchAll(/(\/[\w/]+)/g)].map(([path]) => path),
          found,
        );
      }
      assert.equal(statSync(socket).mode & 0o777, 0o600);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

test('the table of attacks has each attack of the program', () => {
  const rows = page.split('| Kind of attack |')[1]?.split('\n\n')[0] ?? '';
  const named = new Set([...rows.matchAll(/`([a-z0-9-]+)`/g)].map(([, name]) => name!));
  const all = Object.keys(attacks);
  assert.deepEqual(
    [...named].filter((name) => !all.includes(name)),
    [],
  );
  assert.deepEqual(
    all.filter((name) => !named.has(name)),
    [],
  );
});
