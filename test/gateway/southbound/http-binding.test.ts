import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { EventName } from '../../../src/base/event-table.ts';
import type { Gateway } from '../../../src/gateway/gateway.ts';
import { encodeProof, proofMac } from '../../../src/wire/syncml/bootstrap-proof.ts';
import { verifyBootstrap } from '../../../src/wire/syncml/bootstrap-security.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import { decodeTnds } from '../../../src/wire/syncml/tnds.ts';
import { gatewayConfig, Site, secrets } from '../../journeys/site.ts';
import { LeapClock } from '../../leap-clock.ts';
import { startAedes } from '../../peers/brokers.ts';
import { issuedBy, newAuthority, selfSigned } from '../../peers/certificates.ts';
import { StockClient } from '../../peers/stock-client.ts';
import { firstPackage } from '../../wire/syncml/messages.ts';

const limit = { timeout: 60_000 };
const id = 'IMEI:493005100592800';
const stock = {
  deviceId: id,
  serverId: 'com.operator.dm',
  user: 'user',
  password: 'pw',
  serverPassword: 'spw',
  auth: 'md5',
  mediaType: MediaType.Xml,
} as const;
const http = (more: object = {}) => ({
  http: {
    port: 0,
    path: '/funambol/dm',
    'server-id': stock.serverId,
    device: [
      {
        id,
        'client-name': stock.user,
        'client-secret': stock.password,
        'client-auth': ['md5', 'basic'],
        'server-secret': stock.serverPassword,
      },
    ],
    ...more,
  },
});

// conforms: SEC-1, SEC-2, HTT-1
describe('a stock OMA DM client completes a session with the gateway', limit, () => {
  for (const mediaType of [
    MediaType.Xml,
    MediaType.Wbxml,
    'application/vnd.syncml+xml',
    'application/vnd.syncml+wbxml',
  ])
    for (const auth of ['basic', 'md5'] as const)
      test(`${mediaType}, ${auth}`, async () => {
        await using broker = await startAedes();
        await using site = new Site(broker.url);
        await site.headend([]);
        const gateway = await site.gateway([], http());
        await using client = new StockClient({
          ...stock,
          auth,
          mediaType,
          url: `${gateway.httpUrl}/funambol/dm`,
        });
        const managed = gateway.manage(
          id,
          [
            { name: 'Get', uri: './DevInfo' },
            { name: 'Replace', uri: './Site/Name', data: 'south' },
            { name: 'Exec', uri: './Site/Restart' },
          ],
          20_000,
        );
        assert.equal(await client.session(), 200);
        const outcomes = await managed;
        assert.deepEqual(
          outcomes.map(({ status }) => status),
          [200, 200, 200],
        );
        assert.equal(outcomes[0]?.results[0]?.data, 'DevId/Man/Mod/DmV/Lang');
        assert.deepEqual([client.nodes.get('./Site/Name'), client.executed], ['south', ['./Site/Restart']]);
        assert.ok(
          client.types.every((type) => type === mediaType),
          'answered in kind',
        );
        const [record] = gateway.devices();
        assert.deepEqual(
          [record?.origin, record?.manufacturer, record?.firmware],
          ['manual', 'Stock', '7.1'],
        );
        await site.headendEvents.until('alert.device-attach', { device: id, bootstrap: 'manual' });
        assert.equal(await client.session('6'), 200, 'and another one, which goes on with its nonces');
      });

  // conforms: GW-6
  test('a device over HTTP becomes unreachable after a long silence, and attached again with its next message', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const clock = new LeapClock();
    const gateway = await site.gateway([], http(), true, { clock });
    await using client = new StockClient({ ...stock, url: `${gateway.httpUrl}/funambol/dm` });
    assert.equal(await client.session('1'), 200);
    const lastSeen = () => gateway.devices()[0]?.lastSeen ?? 0;
    const first = lastSeen();
    // The watch finds the device at its next round.
    await clock.leap(31_000);
    const unreachable = site.gatewayEvents.next('device.unreachable', { device: id });
    for (const hours of [4, 8, 24]) await clock.leap(hours * 3_600_000);
    assert.equal((await unreachable).fields.reason, 'it comes over HTTP, and was silent for too long');
    assert.equal(await client.session('2'), 200);
    await site.gatewayEvents.until('device.reached', { device: id });
    assert.ok(lastSeen() - first >= 36 * 3_600_000, 'any message counts');
    assert.equal(site.gatewayEvents.count('device.attached'), 1);
  });

  // conforms: PRO-20, PRO-21
  test('a client event alert gets 200; other alerts that nobody knows get 415, 412 and 406, from the gateway and the DM server', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([id], { policy: { 'assisted-bootstrap': false } });
    const gateway = await site.gateway([], http());
    const alert = (code: number) =>
      `<Alert><CmdID>3</CmdID><Data>${code}</Data><Item><Meta><Format xmlns="syncml:metinf">chr</Format><Type xmlns="syncml:metinf">urn:x</Type></Meta><Data>1</Data></Item></Alert>`;
    await using own = new StockClient({ ...stock, url: `${gateway.httpUrl}/funambol/dm` });
    assert.equal(await own.session('1', alert(1224)), 200);
    assert.equal(own.reported, '200');
    await site.gatewayEvents.until('session.alert', { device: id, alert: 1224 });
    const bare = '<Alert><CmdID>3</CmdID><Data>1226</Data></Alert>';
    const untyped = alert(1226).replace(/<Type .*<\/Type>/, '');
    for (const [at, [said, status]] of [
      [alert(1226), '415'],
      [bare, '412'],
      [untyped, '412'],
      [alert(1226).replace(/<Format .*<\/Format>/, ''), '412'],
      [alert(1299), '406'],
    ].entries()) {
      assert.equal(await own.session(`${at + 10}`, said!), 200);
      assert.equal(own.reported, status);
    }
    const account = {
      user: id,
      password: secrets.deviceClient(id),
      serverPassword: secrets.deviceServer(id),
    };
    const url = `${gateway.httpUrl}/dm/t/dm.example`;
    await using far = new StockClient({ ...stock, ...account, serverId: 'dm.example', url });
    assert.equal(await far.session('2', alert(1226)), 200);
    assert.equal(far.reported, '415');
    assert.equal(await far.session('3', alert(1224)), 200);
    assert.equal(far.reported, '200');
  });

  // conforms: HTT-2
  test('a session over TLS attaches the device', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-https-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')] as const;
    selfSigned('localhost', { key, cert }, '-addext', 'subjectAltName=IP:127.0.0.1');
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], http({ 'tls-cert': cert, 'tls-key': key }));
    assert.match(gateway.httpUrl ?? '', /^https:/);
    await using client = new StockClient({
      ...stock,
      url: `${gateway.httpUrl}/funambol/dm`,
      ca: readFileSync(cert, 'utf8'),
    });
    assert.equal(await client.session(), 200);
    assert.equal(gateway.devices().length, 1);
  });

  // conforms: HTT-2
  test('TLS with client-ca takes a client with a certificate of these authorities alone, also after a reload', async (t) => {
    const [devices, others] = ['devices', 'others'].map(() => mkdtempSync(join(tmpdir(), 'postern-mtls-')));
    t.after(() => {
      for (const folder of [devices!, others!]) rmSync(folder, { recursive: true });
    });
    const [key, cert] = [join(devices!, 'key.pem'), join(devices!, 'cert.pem')] as const;
    selfSigned('localhost', { key, cert }, '-addext', 'subjectAltName=IP:127.0.0.1');
    const read = (names: { cert: string; key: string }) => ({
      cert: readFileSync(names.cert, 'utf8'),
      key: readFileSync(names.key, 'utf8'),
    });
    const [good, bad] = [devices!, others!].map((folder) => {
      newAuthority(folder);
      return read(issuedBy(folder, 'device'));
    });
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const tables = http({ 'tls-cert': cert, 'tls-key': key, 'client-ca': join(devices!, 'ca.pem') });
    const gateway = await site.gateway([], tables);
    let sessions = 0;
    const session = async (identity?: { cert: string; key: string }) => {
      await using client = new StockClient({
        ...stock,
        url: `${gateway.httpUrl}/funambol/dm`,
        ca: readFileSync(cert, 'utf8'),
        ...(identity && { identity }),
      });
      return await client.session(String(++sessions));
    };
    assert.equal(await session(good), 200);
    const refused = site.gatewayEvents.next('http.refused', { peer: '127.0.0.1', status: 0 });
    await assert.rejects(session());
    assert.match(String((await refused).fields.reason), /^TLS: .*certificate/);
    await assert.rejects(session(bad));
    copyFileSync(join(others!, 'ca.pem'), join(devices!, 'ca.pem'));
    gateway.reload(() => gatewayConfig(broker.url, [], tables));
    await assert.rejects(session(good));
    assert.equal(await session(bad), 200);
  });

  const guessingAt = ({ httpUrl }: Gateway) =>
    new StockClient({ ...stock, password: 'guess', url: `${httpUrl}/funambol/dm` });

  test('a device with a wrong password gets 401 twice and is not attached', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], http());
    await using client = guessingAt(gateway);
    await client.session();
    assert.deepEqual(client.statuses.slice(0, 2), ['401', '401']);
    assert.equal(gateway.devices().length, 0);
  });

  // conforms: SEC-10
  test('a device that repeats a wrong password is locked out with 429', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], http());
    await using client = guessingAt(gateway);
    let status = 0;
    for (let session = 1; session < 10 && status !== 429; session++)
      status = await client.session(String(session));
    assert.equal(status, 429);
  });
});

describe('accounts of stock clients', limit, () => {
  const names = { user: 'u', password: 'pw', serverName: 'dmserver', serverPassword: 'sp' };
  const short = { device: id, reason: 'client-secret and server-secret of less than 8 characters' };

  // conforms: SEC-1, SEC-2
  test('the names in the proofs are those of the account, not ServerID and DevId; short secrets are told', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const account = {
      id,
      'client-name': names.user,
      'client-secret': names.password,
      'client-auth': ['md5', 'basic'],
      'server-name': names.serverName,
      'server-secret': names.serverPassword,
      'server-auth': ['md5', 'basic'],
    };
    const headend = await site.headend([], {
      device: [account],
      policy: { 'assisted-bootstrap': false },
    });
    const gateway = await site.gateway([], http({ device: [account] }));
    const url = gateway.httpUrl ?? '';
    for (const auth of ['md5', 'basic'] as const) {
      await using own = new StockClient({ ...stock, ...names, auth, url: `${url}/funambol/dm` });
      assert.equal(await own.session(), 200, `gateway, ${auth}`);
      const far = { serverId: 'dm.example', url: `${url}/dm/t/dm.example` };
      await using tunnelled = new StockClient({ ...stock, ...names, ...far, auth });
      assert.equal(await tunnelled.session(), 200, `DM server, ${auth}`);
    }
    assert.equal(headend.devices()[0]?.gateway, 'gw-1');
    for (const told of [site.gatewayEvents, site.headendEvents])
      assert.deepEqual((await told.until('config.weak-secret')).fields, short);
  });
});

test(
  'a session passes through the tunnel, with the device named by the URL or by the package',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const headend = await site.headend([id], { policy: { 'assisted-bootstrap': false } });
    const gateway = await site.gateway([], http({ 'tunnel-path': '/t' }));
    for (const query of ['', `?id=${encodeURIComponent(id)}`]) {
      await using client = new StockClient({
        ...stock,
        serverId: 'dm.example',
        user: id,
        password: secrets.deviceClient(id),
        serverPassword: secrets.deviceServer(id),
        mediaType: MediaType.Wbxml,
        url: `${gateway.httpUrl}/t/dm.example${query}`,
      });
      assert.equal(await client.session(query === '' ? '1' : '2'), 200);
    }
    assert.equal(headend.devices().find((device) => device.id === id)?.gateway, 'gw-1');
  },
);

test(
  'the local bootstrap over HTTP requires a proof of the factory secret, and accepts a proof once',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([id], http());
    const url = `${gateway.httpUrl}/dm/bs?id=${encodeURIComponent(id)}`;
    const ask = (authorization?: string, accept: string = MediaType.Wbxml) =>
      fetch(url, { method: 'POST', headers: { accept, ...(authorization && { authorization }) } });
    const challenged = async () => {
      const { status, headers } = await ask();
      assert.equal(status, 401);
      const found = /^Postern-Bootstrap challenge="([^"]+)"$/.exec(headers.get('www-authenticate') ?? '');
      return Buffer.from(found?.[1] ?? '', 'base64');
    };
    let challenge = await challenged();
    const deviceNonce = randomBytes(16);
    const prove = (secret: string) =>
      `Postern-Bootstrap challenge="${challenge.toString('base64')}", proof="${encodeProof({ deviceNonce, mac: proofMac(secret, challenge, id, deviceNonce) }).toString('base64')}"`;
    assert.equal((await ask(prove('wrong'))).status, 403);
    assert.equal((await ask(prove(secrets.factory(id)))).status, 401, 'a challenge is good for one proof');
    challenge = await challenged();
    const answer = await ask(prove(secrets.factory(id)));
    assert.equal(answer.status, 200);
    const body = Buffer.from(await answer.arrayBuffer());
    const type = answer.headers.get('content-type') ?? '';
    assert.match(type, /^application\/vnd\.syncml\.dm\+wbxml; SEC=NETWORKID; MAC=/);
    verifyBootstrap(body, type, { network: secrets.factory(id) });
    const [command] = decodeMessage(body, MediaType.Wbxml).commands;
    const { root } = decodeTnds((command && 'items' in command && command.items[0]?.data) || '');
    const address = root.children?.find(({ name }) => name === 'AppAddr')?.children?.[0]?.children?.[0]
      ?.value;
    assert.equal(address, `${gateway.httpUrl}/funambol/dm`);
    assert.equal((await ask(prove(secrets.factory(id)))).status, 401, 'a proof is good once');
    challenge = await challenged();
    const inXml = await ask(prove(secrets.factory(id)), `text/html, ${MediaType.Xml.toUpperCase()}`);
    assert.match(inXml.headers.get('content-type') ?? '', /^application\/vnd\.syncml\.dm\+xml; /);
  },
);

describe('requests that are refused or broken off', limit, () => {
  // conforms: HTT-3
  test('a refused request gets the HTTP status of its reason', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], http());
    const base = gateway.httpUrl ?? '';
    const post = (path: string, body: Uint8Array | string, type: string, method = 'POST') =>
      fetch(`${base}${path}`, {
        method,
        headers: { 'content-type': type },
        ...(method === 'POST' && { body }),
      });
    const good = encodeMessage(firstPackage, MediaType.Xml);
    const refused = 'http.refused';
    /** What is asked, the status, and the event that tells the reason, once. */
    const cases: [string, () => Promise<Response>, number, EventName | undefined][] = [
      ['another path', () => post('/nowhere', good, MediaType.Xml), 404, refused],
      ['another method', () => post('/funambol/dm', good, MediaType.Xml, 'GET'), 405, refused],
      ['another type', () => post('/funambol/dm', good, 'text/plain'), 415, refused],
      ['garbage', () => post('/funambol/dm', 'garbage', MediaType.Xml), 400, 'session.refused'],
      ['garbage of WBXML', () => post('/funambol/dm', 'garbage', MediaType.Wbxml), 400, 'session.refused'],
      ['no account, which is challenged', () => post('/funambol/dm', good, MediaType.Xml), 200, undefined],
      ['too large', () => post('/funambol/dm', 'x'.repeat(300_000), MediaType.Xml), 413, refused],
      ['an unknown DM server', () => post('/dm/t/nobody', good, MediaType.Xml), 404, 'tunnel.unknown-server'],
      ['no device', () => post('/dm/t/dm.example', 'x', MediaType.Xml), 400, 'tunnel.package-refused'],
      ['no device to bootstrap', () => post('/dm/bs', '', MediaType.Xml), 400, 'bootstrap.refused'],
    ];
    const quick = await site.gatewayEvents.until('http.insecure');
    assert.equal(quick.severity, 'warn');
    const tellers = [...new Set(cases.flatMap(([, , , event]) => event ?? []))];
    const told = () => site.gatewayEvents.all.filter(({ name }) => tellers.includes(name));
    for (const [what, ask, status, event] of cases) {
      const before = told().length;
      const answer = await ask();
      assert.equal(answer.status, status, what);
      const [now, ...more] = told().slice(before);
      assert.deepEqual([now?.name, more.length], [event, 0], what);
      if (now?.name === refused) assert.equal(`${now.fields.reason}\n`, await answer.text(), what);
    }
  });

  test('a request gets 504 if the DM server does not answer, and 503 with Retry-After if the uplink is down', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], { ...http(), tunnel: { timeout: 1 } });
    const post = () =>
      fetch(`${gateway.httpUrl}/dm/t/dm.example`, {
        method: 'POST',
        headers: { 'content-type': MediaType.Xml },
        body: encodeMessage(firstPackage, MediaType.Xml),
      });
    assert.equal((await post()).status, 504);
    await broker.stop();
    await site.gatewayEvents.until('mqtt.disconnected');
    const down = await post();
    assert.deepEqual([down.status, down.headers.get('retry-after')], [503, '30']);
  });

  test('an incomplete request does not delay the end of the gateway', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], http());
    const { port, hostname } = new URL(gateway.httpUrl ?? '');
    const socket = connect(Number(port), hostname);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => {});
    socket.write(
      `POST /funambol/dm HTTP/1.1\r\nhost: x\r\ncontent-type: ${MediaType.Xml}\r\ncontent-length: 100\r\n\r\n<Sync`,
    );
    await new Promise<void>((resolve) => socket.once('ready', () => resolve()));
    await gateway[Symbol.asyncDispose]();
    await closed;
  });
});

describe('the HTTP listener', limit, () => {
  // conforms: HTT-2
  test('plain HTTP beyond loopback must be allowed explicitly', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await assert.rejects(site.gateway([], http({ host: '0.0.0.0' }), false), /insecure-plain-http/);
  });

  test('the errors for a port in use and a missing certificate name their keys', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const first = await site.gateway([], http());
    const { port } = new URL(first.httpUrl ?? '');
    await assert.rejects(
      site.gateway(
        [],
        { ...http({ port: Number(port) }), gateway: { id: 'gw-2', state: ':memory:' } },
        false,
      ),
      /http\.port/,
    );
    await assert.rejects(
      site.gateway(
        [],
        { ...http({ 'tls-cert': '/none', 'tls-key': '/none' }), gateway: { id: 'gw-3', state: ':memory:' } },
        false,
      ),
      /http\.tls-cert/,
    );
  });

  test('is off unless it is configured', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    assert.equal((await site.gateway([])).httpUrl, undefined);
  });
});

test(
  'the gateway manages a device over CoAP as its DM server, starting with its own Package #0',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway(['urn:dev:ops:1']);
    const device = site.device('urn:dev:ops:1', gateway, { factory: true });
    await device.start();
    await device.attached;
    const outcomes = await gateway.manage('urn:dev:ops:1', [{ name: 'Get', uri: './DevInfo/Mod' }], 20_000);
    assert.deepEqual([outcomes[0]?.status, outcomes[0]?.results[0]?.data], [200, 'Reference End Device']);
    await assert.rejects(gateway.manage('urn:dev:nobody', [], 1000), { code: 'notFound' });
  },
);
