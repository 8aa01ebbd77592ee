import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { checkConfig } from '../../src/base/config.ts';
import { apiConnections, HeadendApi } from '../../src/headend/api.ts';
import { ApiGuard, guardLimits } from '../../src/headend/api-guard.ts';
import { apiIdentity } from '../../src/headend/api-identity.ts';
import { ApiToken } from '../../src/headend/api-token.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { selfSigned } from '../peers/certificates.ts';

const limit = { timeout: 60_000 };
const headend = {
  gateways: () => [],
  sessionOrders: { run: async () => ({ correlator: '', operations: [] }) },
  settled: async () => {},
} as unknown as Headend;

function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-api-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const configured = (api: object) =>
  checkConfig(
    headendConfigSchema,
    { headend: { id: 'dm.example' }, mqtt: { url: 'mqtt://127.0.0.1' }, api },
    'headend.toml',
  ).api;

async function apiFor(settings: object = {}) {
  const events = new EventRecorder();
  const clock = new HandClock();
  const api = new HeadendApi({
    headend,
    events,
    clock,
    token: { accepts: (given) => given === 'right' },
    settings: configured({ port: 0, ...settings }),
  });
  await api.start();
  return { api, events, clock, [Symbol.asyncDispose]: () => api[Symbol.asyncDispose]() };
}

type Headers = Record<string, string>;

/** Sends a request with just these headers, and `Host`. */
async function ask(
  url: string,
  headers: Headers = {},
  { method = 'GET', path = '/gateways', body = '' } = {},
) {
  const outgoing = request(`${url}${path}`, { method, headers });
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  const text = Buffer.concat(await response.toArray()).toString();
  return { status: response.statusCode, headers: response.headers, text };
}

const right = { authorization: 'Bearer right' };

describe('who may use the API of the head-end', limit, () => {
  test('a request needs the token, and each path does', async () => {
    await using running = await apiFor();
    const { url } = running.api;
    for (const path of ['/gateways', '/healthz', '/openapi.json', '/nothing', '/devices/x/sessions']) {
      const { status, headers } = await ask(url, {}, { path });
      assert.deepEqual([path, status, headers['www-authenticate']], [path, 401, 'Bearer']);
    }
    assert.equal((await ask(url, { authorization: 'Bearer wrong' })).status, 401);
    assert.equal((await ask(url, { authorization: 'Basic right' })).status, 401);
    assert.equal((await ask(url, right)).status, 200);
    assert.equal((await ask(url, right, { path: '/openapi.json' })).status, 200);
    assert.ok(running.events.count('api.refused') > 0);
  });

  test('wrong tokens of an address are counted and then refused with 429; the right one is always taken', async () => {
    await using running = await apiFor();
    const { url } = running.api;
    const statuses: unknown[] = [];
    for (let n = 0; n < guardLimits.free + 3; n++)
      statuses.push((await ask(url, { authorization: `Bearer ${n}` })).status);
    assert.deepEqual(statuses, [...Array(guardLimits.free + 1).fill(401), 429, 429]);
    assert.equal((await ask(url, right)).status, 200);
    assert.equal((await ask(url, { authorization: 'Bearer wrong' })).status, 401, 'the count began anew');
  });

  test('the addresses that are counted are bounded', () => {
    const guard = new ApiGuard({
      token: { accepts: () => false },
      host: '127.0.0.1',
      hosts: [],
      origins: [],
      clock: new HandClock(),
      events: new EventRecorder(),
    });
    const from = (remoteAddress: string) => () =>
      guard.check({
        headers: { host: 'localhost', authorization: 'Bearer wrong' },
        socket: { remoteAddress, localAddress: '127.0.0.1' },
      } as unknown as IncomingMessage);
    for (let n = 0; n <= guardLimits.free; n++) assert.throws(from('192.0.2.1'), { code: 'unauthorized' });
    assert.throws(from('192.0.2.1'), { code: 'lockedOut' });
    for (let n = 0; n < guardLimits.peers; n++)
      assert.throws(from(`2001:db8:${n.toString(16)}::1`), { code: 'unauthorized' });
    assert.throws(
      from('192.0.2.1'),
      { code: 'unauthorized' },
      'the one that failed longest ago is forgotten',
    );
    for (let n = 0; n < 1000; n++)
      assert.throws(from(`2001:db8:ffff:1::${n.toString(16)}`), {
        code: n <= guardLimits.free ? 'unauthorized' : 'lockedOut',
      });
  });

  test('a foreign name in Host is refused (DNS rebinding), a listed one is not', async () => {
    await using running = await apiFor({ hosts: ['dm.example'] });
    const { url } = running.api;
    const statusOf = async (host: string) => (await ask(url, { ...right, host })).status;
    for (const host of ['evil.example', '127.0.0.1.evil.example', 'localhost.evil.example:80', 'x@localhost'])
      assert.deepEqual([host, await statusOf(host)], [host, 403]);
    for (const host of ['localhost', 'LOCALHOST:9090', '127.0.0.1', 'dm.example:443'])
      assert.deepEqual([host, await statusOf(host)], [host, 200]);
  });

  test('a web page of a foreign origin is refused; a listed one may ask and send', async () => {
    await using running = await apiFor({ origins: ['https://ops.example'] });
    const { url } = running.api;
    for (const origin of ['https://evil.example', 'null', 'http://ops.example', url])
      assert.deepEqual([origin, (await ask(url, { ...right, origin })).status], [origin, 403]);
    const foreign = await ask(url, { origin: 'https://evil.example' }, { method: 'OPTIONS' });
    assert.equal(foreign.headers['access-control-allow-origin'], undefined);
    const own = { origin: 'https://ops.example' };
    const asked = await ask(url, own, { method: 'OPTIONS' });
    assert.deepEqual([asked.status, asked.headers['access-control-allow-origin']], [204, own.origin]);
    assert.equal((await ask(url, own)).status, 401, 'an origin is no token');
    assert.equal((await ask(url, { ...own, ...right })).status, 200);
  });

  test('a body is taken as application/json only', async () => {
    await using running = await apiFor();
    const statusOf = async (type: string | undefined, body: string) => {
      const headers = { ...right, ...(type !== undefined && { 'content-type': type }) };
      return (await ask(running.api.url, headers, { method: 'POST', path: '/devices/x/sessions', body }))
        .status;
    };
    for (const type of [
      'text/plain',
      'text/plain; x=application/json',
      'application/x-www-form-urlencoded',
      'x',
    ])
      assert.deepEqual([type, await statusOf(type, '{}')], [type, 415]);
    assert.equal(await statusOf(undefined, '{}'), 415);
    assert.equal(await statusOf('text/plain', ''), 415);
    assert.equal(await statusOf(undefined, ''), 200);
    assert.equal(await statusOf('application/json', '{}'), 200);
    assert.equal(await statusOf('Application/JSON; charset=utf-8', '{}'), 200);
  });

  test('without the token no body is waited for', async () => {
    await using running = await apiFor();
    const port = Number(new URL(running.api.url).port);
    const one = connect(port, '127.0.0.1');
    one.write(
      'POST /images HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n',
    );
    const answer = Buffer.concat(await one.toArray()).toString();
    assert.match(answer, /^HTTP\/1\.1 401/);
    assert.match(answer, /connection: close/i);
  });

  test('connections of one host, of one network and of many leave room where the token was shown', async (t) => {
    await using running = await apiFor();
    const port = Number(new URL(running.api.url).port);
    /** Whether a request from this address is answered, be it with 401. */
    const asks = async (localAddress: string, headers: Headers = {}) => {
      const outgoing = request({ port, host: '127.0.0.1', localAddress, headers, agent: false });
      outgoing.end();
      try {
        const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
        response.resume();
        await once(response, 'end');
        return true;
      } catch {
        return false;
      }
    };
    assert.ok(await asks('127.9.0.1', right), 'the operator is known from now on');
    let open = 0;
    const silent = async (count: number, address: (at: number) => string) => {
      const before = open;
      for (let at = 0; at < count; at++) {
        const socket = connect({ port, host: '127.0.0.1', localAddress: address(at) });
        t.after(() => socket.destroy());
        socket.on('error', () => {});
        socket.once('close', () => open--);
        open++;
        socket.resume();
        await once(socket, 'connect');
      }
      // The server has decided about all that came before.
      assert.ok(await asks('127.9.0.1'));
      return open - before;
    };
    const { perAddress, perPrefix, strangers } = apiConnections;
    assert.equal(await silent(perAddress + 5, () => '127.7.0.1'), perAddress);
    assert.ok(await asks('127.7.0.2'), 'another host of its network');
    assert.equal(await silent(perPrefix, (at) => `127.7.0.${2 + (at % 20)}`), perPrefix - perAddress);
    assert.ok(await asks('127.8.0.1'), 'another network');
    assert.equal(await silent(strangers, (at) => `127.6.${at}.1`), strangers - perPrefix);
    assert.ok(await asks('127.9.0.1'), 'the operator');
    assert.equal(await asks('127.5.0.1'), false, 'a further stranger');
    assert.ok(running.events.count('api.refused') > 0);
  });

  test('the addresses where the token was shown are bounded', () => {
    const guard = new ApiGuard({
      ...{ token: { accepts: () => true }, host: '127.0.0.1', hosts: [], origins: [] },
      ...{ clock: new HandClock(), events: new EventRecorder() },
    });
    const show = (remoteAddress: string) =>
      guard.check({
        headers: { host: 'localhost', authorization: 'Bearer right' },
        socket: { remoteAddress, localAddress: '127.0.0.1' },
      } as unknown as IncomingMessage);
    show('192.0.2.1');
    assert.ok(guard.isKnown('192.0.2.1'));
    for (let n = 0; n < guardLimits.known; n++) show(`2001:db8::${n.toString(16)}`);
    assert.equal(guard.isKnown('192.0.2.1'), false);
  });

  test('a client that sends its headers or its body slowly is closed, others are served meanwhile', async () => {
    const parts = { headend, events: new EventRecorder(), settings: configured({ port: 0 }) };
    const limits = { headers: 300, request: 600, check: 50 };
    await using api = new HeadendApi({ ...parts, token: { accepts: (given) => given === 'right' }, limits });
    await api.start();
    const port = Number(new URL(api.url).port);
    const slow = [
      'GET / HT',
      'POST /images HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer right\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{',
    ].map((begin) => {
      const socket = connect(port, '127.0.0.1');
      socket.write(begin);
      return socket;
    });
    assert.equal((await ask(api.url, right)).status, 200);
    for (const socket of slow)
      assert.match(Buffer.concat(await socket.toArray()).toString(), /^HTTP\/1\.1 408/);
  });

  test('the API leaves loopback only with TLS or a key that says insecure', () => {
    const refused = {
      code: 'configuration',
      message: /api: host is not loopback; it needs tls-cert and tls-key, or insecure/,
    };
    for (const host of ['0.0.0.0', '::', '192.0.2.1', 'dm.example'])
      assert.throws(() => configured({ host }), refused, host);
    assert.throws(
      () => configured({ 'tls-cert': 'x' }),
      /api: tls-cert and tls-key belong together, and tls-key is missing/,
    );
    for (const host of ['127.0.0.1', '127.0.0.2', '::1', 'localhost']) configured({ host });
    configured({ host: '0.0.0.0', 'insecure-plain-http': true });
    configured({ host: '0.0.0.0', 'tls-cert': 'x', 'tls-key': 'y' });
  });

  test('plain HTTP away from loopback is told as an event', async () => {
    await using running = await apiFor({ host: '0.0.0.0', 'insecure-plain-http': true });
    assert.equal(running.events.count('api.insecure'), 1);
    const url = `http://127.0.0.1:${new URL(running.api.url).port}`;
    assert.equal((await ask(url, right)).status, 200, 'its own address is a name that it knows');
  });

  test('with a certificate the API speaks TLS, and nothing else', async (t) => {
    const folder = folderFor(t);
    const files = { key: join(folder, 'key.pem'), cert: join(folder, 'cert.pem') };
    selfSigned('dm.example', files);
    const settings = configured({
      port: 0,
      hosts: ['dm.example'],
      'tls-cert': files.cert,
      'tls-key': files.key,
    });
    const events = new EventRecorder();
    const tls = apiIdentity(settings);
    await using api = new HeadendApi({ headend, events, settings, tls, token: { accepts: () => true } });
    await api.start();
    const port = Number(new URL(api.url).port);
    const outgoing = tlsRequest({
      ...{
        host: '127.0.0.1',
        port,
        path: '/gateways',
        ca: readFileSync(files.cert),
        servername: 'dm.example',
      },
      headers: { host: 'dm.example', ...right },
    });
    outgoing.end();
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
    response.resume();
    assert.equal(response.statusCode, 200);
    await assert.rejects(ask(`http://127.0.0.1:${port}`, right));
    assert.throws(() => apiIdentity({ ...settings, 'tls-key': files.cert }), { code: 'configuration' });
  });
});

describe('the token', () => {
  const tokenIn = (file: string) =>
    /^Authorization: Bearer (\S{43})\n$/.exec(readFileSync(file, 'utf8'))?.[1] ?? '';

  test('is made at the first start, written for its user alone, and kept as a hash', (t) => {
    const folder = folderFor(t);
    const state = join(folder, 'headend.db');
    const first = new ApiToken({ state });
    assert.equal(first.prepare(), true);
    assert.equal(first.file, `${state}.token`);
    const token = tokenIn(first.file);
    assert.ok(first.accepts(token));
    for (const wrong of ['', token.slice(1), `${token} `, 'x'.repeat(100_000)])
      assert.equal(first.accepts(wrong), false);
    for (const file of readdirSync(folder))
      assert.equal(statSync(join(folder, file)).mode & 0o777, 0o600, file);
    rmSync(first.file);
    for (const file of readdirSync(folder))
      assert.ok(!readFileSync(join(folder, file), 'utf8').includes(token), `${file} does not have the token`);
    const second = new ApiToken({ state });
    assert.equal(second.prepare(), false, 'a restart makes none');
    assert.ok(second.accepts(token));
    assert.ok(!existsSync(second.file));
  });

  test('a new one is in force at once, in a head-end that runs too', (t) => {
    const state = join(folderFor(t), 'headend.db');
    const running = new ApiToken({ state });
    running.prepare();
    const before = tokenIn(running.file);
    new ApiToken({ state }).renew();
    assert.equal(running.accepts(before), false);
    assert.ok(running.accepts(tokenIn(running.file)));
  });

  test('a power cut between its two files, and a damaged hash, lead to a new one', (t) => {
    const state = join(folderFor(t), 'headend.db');
    writeFileSync(`${state}.token`, 'Authorization: Bearer lost');
    const cut = new ApiToken({ state });
    assert.equal(cut.accepts('lost'), false);
    assert.equal(cut.prepare(), true);
    writeFileSync(`${state}.token-hash`, '');
    const damaged = new ApiToken({ state });
    assert.equal(damaged.accepts(''), false);
    assert.equal(damaged.prepare(), true);
  });

  test('a link in place of its file is not written through, and a folder that takes no file is an error', (t) => {
    const folder = folderFor(t);
    const victim = join(folder, 'victim');
    writeFileSync(victim, 'as it was');
    const file = join(folder, 'token');
    symlinkSync(victim, file);
    symlinkSync(victim, `${file}.new`);
    new ApiToken({ state: ':memory:', file }).prepare();
    assert.equal(readFileSync(victim, 'utf8'), 'as it was');
    assert.equal(tokenIn(file).length, 43);
    const nowhere = new ApiToken({ state: ':memory:', file: join(folder, 'none', 'token') });
    assert.throws(() => nowhere.prepare(), { code: 'configuration', message: /api\.token-file/ });
  });

  test('a file that holds anything but a token is not replaced', (t) => {
    const folder = folderFor(t);
    const state = join(folder, 'headend.db');
    const before = new ApiToken({ state });
    before.prepare();
    const token = tokenIn(before.file);
    for (const [name, content] of [
      ['gateway.toml', '[gateway]\nid = "gw-1"\n'],
      ['short', 'a'],
      ['large', `Authorization: Bearer ${'x'.repeat(1000)}`],
    ] as const) {
      const file = join(folder, name);
      writeFileSync(file, content);
      assert.throws(() => new ApiToken({ state, file }).renew(), {
        message: /holds something else; name another file/,
      });
      assert.equal(readFileSync(file, 'utf8'), content);
      assert.ok(before.accepts(token), 'the token before holds on');
    }
    const empty = join(folder, 'empty');
    writeFileSync(empty, '');
    new ApiToken({ state, file: empty }).renew();
    assert.ok(before.accepts(tokenIn(empty)));
    new ApiToken({ state, file: empty }).renew();
    assert.ok(before.accepts(tokenIn(empty)));
  });

  test('curl takes the file as it is', limit, async (t) => {
    const token = new ApiToken({ state: join(folderFor(t), 'headend.db') });
    token.prepare();
    const settings = configured({ port: 0 });
    await using api = new HeadendApi({ headend, events: new EventRecorder(), settings, token });
    await api.start();
    const curl = async (...args: string[]) =>
      (await promisify(execFile)('curl', ['-s', '-H', `@${token.file}`, ...args])).stdout;
    assert.equal(await curl(`${api.url}/gateways`), '[]\n');
    assert.match(await curl(`${api.url}/devices/x/sessions`, '--json', '{}'), /"id": "x"/);
  });
});
