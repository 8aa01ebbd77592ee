import assert from 'node:assert/strict';
import { createPublicKey } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { composeGateway } from '../../../src/gateway/composition.ts';
import { Gateway } from '../../../src/gateway/gateway.ts';
import { access, mayUse } from '../../../src/gateway/southbound/access.ts';
import { type CoapCall, call } from '../../../src/wire/coap/blockwise-client.ts';
import { Code, codeText } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { Option, text, uint } from '../../../src/wire/coap/options.ts';
import { markOf } from '../../../src/wire/secure/dtls/certificates.ts';
import { factoryIdentity, factoryKey } from '../../../src/wire/secure/transport-keys.ts';
import { encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { Joiner } from '../../journeys/joiner.ts';
import { gatewayConfig, loopback, secrets } from '../../journeys/site.ts';
import { CoapPeer } from '../../peers/coap-peer.ts';
import { type Issued, issue } from '../../wire/secure/dtls/authority.ts';
import { SocketEnd } from '../../wire/secure/dtls/socket-end.ts';

const id = 'urn:dev:ops:1';
const other = 'urn:dev:ops:2';
const keys = ['plain', 'factory', 'gateway', 'configuration'] as const;
const columns = [...keys, 'joining', 'pinned', 'parent'] as const;

/** Rows of the table in docs/security.md: resource, and a word for each column. */
const documented = (): readonly (readonly [string, readonly string[]])[] => {
  const page = readFileSync('docs/security.md', 'utf8');
  const [, section = ''] = page.split('\n## Which key opens which resource');
  return section
    .split(/\n#/)[0]!
    .split('\n')
    .flatMap((line) => {
      const [, path = '', ...cells] = /^\| `([^`]+)` \|(.*)\|$/.exec(line) ?? [];
      return path === '' ? [] : [[path, cells[0]!.split('|').map((cell) => cell.trim())] as const];
    });
};

describe('who may use which resource', () => {
  test('the table of docs/security.md is the table of the code', () => {
    const inCode = Object.keys(access).map((path) => [
      path,
      columns.map((credential) => (mayUse(path, credential, false) ? 'yes' : 'no')),
    ]);
    assert.deepEqual(documented().toSorted(), inCode.toSorted());
  });

  test('what the table does not name is for nobody, whatever plain CoAP is allowed', () => {
    for (const credential of [...columns, 'none'] as const)
      assert.equal(mayUse('/elsewhere', credential, true), false);
    for (const path of Object.keys(access)) {
      assert.equal(mayUse(path, 'none', true), false);
      assert.equal(mayUse(path, 'plain', true), true);
    }
  });
});

type Answers = Map<string, { code: string; said: string }>;

const gets = ['/.well-known/core', '/gw/status', '/img', '/bspack'];
const below: Readonly<Record<string, readonly string[]>> = { '/img': ['none'], '/dm/t': ['dm.example'] };

const requestTo = (path: string): CoapCall => ({
  method: gets.includes(path) ? Code.GET : Code.POST,
  path: [...path.split('/').slice(1), ...(below[path] ?? [])],
  query: [path === '/.well-known/core' ? 'rt=oma.dm' : `id=${id}`],
  timeout: 20_000,
});

/** Asks for each resource. Returns the answers, by path. */
async function answers(
  ask: (request: CoapCall) => Promise<{ code: number; payload: Uint8Array }>,
): Promise<Answers> {
  const all: Answers = new Map();
  for (const path of Object.keys(access).filter((each) => each !== '/dmn')) {
    const { code, payload } = await ask(requestTo(path));
    all.set(path, { code: codeText(code), said: Buffer.from(payload).toString() });
  }
  return all;
}

const overDtls = async (gateway: Gateway, identity: string, key: Uint8Array) => {
  await using end = await SocketEnd.open({ server: undefined as never });
  const port = gateway.coapsPort!;
  await end.dtls.connect({ address: '127.0.0.1', port, local: '' }, { identity, key });
  return await answers((request) => call(end.coap, systemEntropy, '127.0.0.1', port, request));
};

const isDenied = (said: string): boolean =>
  said.startsWith('coaps:') || said === 'CoAP over DTLS only' || said === 'this key is not for this resource';

test('each key opens what the table says, and plain CoAP tells where to go', {
  timeout: 60_000,
}, async (t) => {
  const configured = 'sesame-sesame-16';
  const issued = { identity: 'gw:issued', key: 'issued-issued-16' };
  const folder = mkdtempSync(join(tmpdir(), 'postern-access-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const own = issue({});
  const keyFile = join(folder, 'gateway.key');
  writeFileSync(keyFile, own.keyPem, { mode: 0o600 });
  const config = gatewayConfig('mqtt://127.0.0.1:1', [id], {
    coap: { port: 0, leisure: 50 },
    coaps: { port: 0, 'key-file': keyFile, device: [{ identity: id, key: configured }] },
    lwm2m: { device: [{ id: 'client' }] },
  });
  const events = new EventRecorder();
  const surroundings = { events, listInterfaces: loopback('IPv4') };
  const parts = composeGateway(config, surroundings);
  parts.state.credentials.keys.add(id, issued);
  const pinned = issue({});
  const mark = markOf(createPublicKey(pinned.publicPem).export({ type: 'spki', format: 'der' }));
  parts.state.pins.add({ deviceId: other, mark, protocol: 'OMA-DM', joined: 0 });
  await using gateway = new Gateway(config, surroundings, parts);
  await gateway.start();
  await using peer = await CoapPeer.open();
  await gateway.orderJoins({ minutes: 1, devices: 1 });
  const byKey = async (key: Issued) => {
    await using joiner = await Joiner.open(gateway, key);
    await joiner.connect(own);
    return await answers((request) => joiner.ask(request));
  };
  const found = {
    joining: await byKey(issue({})),
    pinned: await byKey(pinned),
    plain: await answers((request) => peer.call(gateway.coapPort, request)),
    factory: await overDtls(gateway, factoryIdentity(id), factoryKey(secrets.factory(id), id)),
    gateway: await overDtls(gateway, issued.identity, Buffer.from(issued.key)),
    configuration: await overDtls(gateway, id, Buffer.from(configured)),
  };
  for (const credential of keys)
    for (const [path, { code, said }] of found[credential])
      assert.equal(
        !isDenied(said),
        mayUse(path, credential, false),
        `${credential} at ${path}: ${code} ${said}`,
      );
  for (const { code, said } of found.plain.values()) if (isDenied(said)) assert.equal(code, '4.01');
  for (const { code, said } of found.gateway.values()) if (isDenied(said)) assert.equal(code, '4.03');
  const told = new Set(
    events.all.flatMap(({ name, fields }) =>
      name === 'coap.refused' ? [`${fields.identity ?? ''} ${fields.reason}`] : [],
    ),
  );
  for (const path of found.plain.keys())
    assert.equal(told.has(` plain CoAP is not allowed at ${path}`), !mayUse(path, 'plain', false), path);
  for (const path of found.factory.keys())
    assert.equal(
      told.has(`${id} ${path} is not for a key of the kind factory`),
      !mayUse(path, 'factory', false),
      path,
    );
  const base = `coaps://127.0.0.1:${gateway.coapsPort}`;
  assert.equal(found.plain.get('/dm/bs')?.said, `${base}/dm/bs`);
  assert.equal(found.plain.get('/bs')?.said, `${base}/bs`);
  assert.equal(found.plain.get('/dm')?.said, 'CoAP over DTLS only');
  assert.ok(found.plain.get('/.well-known/core')?.said.startsWith(`<${base}/dm>;`));
  assert.ok(found.factory.get('/.well-known/core')?.said.startsWith('</dm>;'));
});

test('a session, a package and a bootstrap belong to the device whose key they come by', async () => {
  const issued = { identity: 'gw:issued', key: 'issued-issued-16' };
  const config = gatewayConfig('mqtt://127.0.0.1:1', [id, other], { coap: { port: 0, leisure: 50 } });
  const events = new EventRecorder();
  const surroundings = { events, listInterfaces: loopback('IPv4') };
  const parts = composeGateway(config, surroundings);
  parts.state.credentials.keys.add(id, issued);
  await using gateway = new Gateway(config, surroundings, parts);
  await gateway.start();
  const port = gateway.coapsPort!;
  const place = { address: '127.0.0.1', port, local: '' };
  await using end = await SocketEnd.open({ server: undefined as never });
  await end.dtls.connect(place, { identity: issued.identity, key: Buffer.from(issued.key) });
  const body = encodeMessage(
    {
      header: {
        verDtd: '1.2',
        verProto: 'DM/1.2',
        sessionId: '1',
        msgId: 1,
        target: { locUri: 'gw-1' },
        source: { locUri: other },
      },
      commands: [],
      final: true,
    },
    MediaType.Xml,
  );
  const post = async (at: SocketEnd, path: readonly string[]) => {
    const answer = await at.coap.request('127.0.0.1', port, {
      code: Code.POST,
      options: [
        ...path.map((segment) => text(Option.UriPath, segment)),
        uint(Option.ContentFormat, ContentFormat.SyncmlXml),
        text(Option.UriQuery, `id=${other}`),
      ],
      payload: body,
      timeout: 20_000,
    });
    return [codeText(answer.code), Buffer.from(answer.payload).toString()];
  };
  const session = await post(end, ['dm']);
  assert.deepEqual(session, ['4.03', 'a session belongs to the device whose key it comes by']);
  await events.until('session.failed', { device: other });
  const tunnelled = await post(end, ['dm', 't', 'dm.example']);
  assert.deepEqual(tunnelled, ['4.03', 'a package belongs to the device whose key it comes by']);
  await using factory = await SocketEnd.open({ server: undefined as never });
  const key = factoryKey(secrets.factory(id), id);
  await factory.dtls.connect(place, { identity: factoryIdentity(id), key });
  const bootstrap = await post(factory, ['dm', 'bs']);
  assert.deepEqual(bootstrap, ['4.03', 'no bootstrap for this device and proof']);
  await events.until('bootstrap.refused', { device: other });
});
