import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { Code } from '../../src/wire/coap/codes.ts';
import { Option, text } from '../../src/wire/coap/options.ts';
import { ServiceProcess } from '../cli/service-process.ts';
import { Foreign, without } from '../peers/foreign.ts';
import { authority, certificatesOf, type Issued, issue } from '../wire/secure/dtls/authority.ts';
import { SocketEnd } from '../wire/secure/dtls/socket-end.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-coaps-certificates-'));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  chmodSync(path, 0o600);
  return path;
};

const root = authority('Test root');
const second = authority('Second root');
const gatewayOwn = issue({ commonNames: ['localhost'], dnsNames: ['localhost'] }, root);
const device = issue({ uris: ['urn:dev:ops:32473-one'] }, root);
const ofSecond = issue({ commonNames: ['two'] }, second);
const raw = issue({ commonNames: ['not used'] });
const rootFile = file('root.pem', root.pem);
const secondFile = file('second.pem', second.pem);
const config = join(folder, 'gateway.toml');

interface Settings {
  readonly own?: Issued;
  readonly authorities?: readonly string[];
  /** Public keys as PEM, by name. */
  readonly rawKeys?: Readonly<Record<string, string>>;
  readonly port?: number;
  readonly coaps?: string;
}

function configure({ own = gatewayOwn, authorities = [rootFile, secondFile], port = 0, ...more }: Settings) {
  const rawKeys = Object.entries(more.rawKeys ?? { three: raw.publicPem }).map(([name, pem]) => {
    const base64 = pem.replace(/-----.*-----|\n/g, '');
    return `[[coaps.raw-key]]\nidentity = "${name}"\npublic-key = "${base64}"\n`;
  });
  const certificate = file('gateway.pem', own.pem);
  const key = file('gateway.key', own.keyPem);
  const coaps =
    more.coaps ??
    `certificate-file = "${certificate}"\nkey-file = "${key}"\nca-files = ${JSON.stringify(authorities)}`;
  const clients = ['urn:dev:ops:32473-one', 'two', 'three', 'other'].map(
    (id) => `[[lwm2m.device]]\nid = "${id}"\n`,
  );
  writeFileSync(
    config,
    `[gateway]\nid = "gw-1"\nstate = "${join(folder, 'state.db')}"\nadmin-socket = "${join(folder, 'admin.sock')}"
[coap]\nport = 0\ninterfaces = ["lo"]\nmulticast = false\ninsecure-plain-coap = true
[coaps]\nport = ${port}\n${coaps}\n${rawKeys.join('')}
[mqtt]\nurl = "mqtt://127.0.0.1:1"
[dm-server]\nid = "dm.example"\nclient-secret = "client-secret"\nserver-secret = "server-secret"
[lwm2m]\ninsecure-no-security = true\n${clients.join('')}`,
  );
}

async function started() {
  const gateway = ServiceProcess.postern(['gateway', '--config', config]);
  await gateway.until('gateway.started');
  const [, secure] = gateway.lines.filter(
    ({ event, address }) => event === 'coap.listening' && address === '127.0.0.1',
  );
  return { gateway, port: Number(secure?.port) };
}

/** What a client of libcoap is given to prove itself with the certificate or raw public key of a device. */
const x509 = (name: string, { pem, keyPem }: Issued) => [
  ...['-c', file(`${name}.pem`, pem), '-j', file(`${name}.key`, keyPem), '-C', rootFile],
];
const rawKey = (name: string, { key }: Issued) => [
  '-M',
  file(`${name}.key`, key.export({ type: 'sec1', format: 'pem' }).toString()),
];
const run = async (program: string, port: number, path: string, ...args: string[]) => {
  await using client = new Foreign(program, [
    ...['-B', '5', '-v', '6', ...args],
    `coaps://localhost:${port}${path}`,
  ]);
  return await client.ended();
};

for (const [program, name, args] of [
  ['coap-client-openssl', 'urn:dev:ops:32473-one', x509('one', device)],
  ['coap-client-gnutls', 'two', x509('two', ofSecond)],
  ['coap-client-gnutls', 'three', rawKey('three', raw)],
] as const)
  test(`${program} registers as ${name}, which it has proved to be, and under no other name`, {
    skip: without(program),
  }, async () => {
    configure({});
    const { gateway, port } = await started();
    await using _gateway = gateway;
    const register = ['-m', 'post', '-t', '40', '-e', '</1/0>,</3/0>', ...args];
    const as = (endpoint: string) =>
      run(program, port, `/rd?ep=${endpoint}&lt=60&lwm2m=1.1&b=U`, ...register);
    assert.match(await as('other'), /4\.03/);
    await gateway.until('registration.refused', { device: 'other' });
    assert.match(await as(name), /2\.01/);
    await gateway.until('dtls.opened', { identity: name });
    await gateway.until('registration.taken', { device: name });
  });

const ask = async (device: SocketEnd, port: number, timeout = 20_000) => {
  const { code } = await device.coap.request('127.0.0.1', port, {
    code: Code.GET,
    options: [text(Option.UriPath, '.well-known'), text(Option.UriPath, 'core')],
    payload: new Uint8Array(),
    timeout,
  });
  assert.equal(code, Code.Content);
};
const openClient = () => SocketEnd.open({ server: undefined as never });
const connect = (client: SocketEnd, port: number, own: Issued, isRaw = false, trusted = root) => {
  const certificates = certificatesOf(own, {
    chain: isRaw ? [] : [own],
    ...(isRaw ? { rawKeys: { localhost: gatewayOwn } } : { authorities: [trusted] }),
  });
  return client.dtls.connect(
    { address: '127.0.0.1', port, local: '' },
    { identity: 'own', certificates: { ...certificates, serverName: 'localhost' } },
  );
};

describe('SIGHUP', () => {
  test('an authority or raw public key that is removed ends its associations at once, and no other', async () => {
    configure({});
    const { gateway, port } = await started();
    await using _gateway = gateway;
    await using one = await openClient();
    await using two = await openClient();
    await using three = await openClient();
    await connect(one, port, device);
    await connect(two, port, ofSecond);
    await connect(three, port, raw, true);
    for (const client of [one, two, three]) await ask(client, port);

    configure({ authorities: [rootFile] });
    gateway.child.kill('SIGHUP');
    await two.until(0, 1);
    await gateway.until('dtls.closed', { identity: 'two' });
    await ask(one, port);
    await ask(three, port);
    await assert.rejects(connect(two, port, ofSecond), /alert 48/);

    configure({ authorities: [rootFile], rawKeys: {} });
    gateway.child.kill('SIGHUP');
    await three.until(0, 1);
    await assert.rejects(connect(three, port, raw, true), /alert 43/);
    await ask(one, port);
    assert.deepEqual(one.closings, []);
  });

  test('the certificate of the gateway is replaced; files that do not fit leave the former one in force', async () => {
    configure({});
    const { gateway, port } = await started();
    await using _gateway = gateway;
    await using before = await openClient();
    await connect(before, port, device);

    configure({ own: issue({ commonNames: ['localhost'], dnsNames: ['localhost'] }, second) });
    gateway.child.kill('SIGHUP');
    await gateway.until('config.reloaded');
    await using next = await openClient();
    await assert.rejects(connect(next, port, ofSecond), /no configured authority/);
    await connect(next, port, ofSecond, false, second);
    await ask(before, port);

    file('gateway.key', gatewayOwn.keyPem);
    gateway.child.kill('SIGHUP');
    await gateway.until('config.refused', {
      reason: `coaps.key-file: ${join(folder, 'gateway.key')} is not the key of the certificate ${join(folder, 'gateway.pem')}`,
    });
    await using last = await openClient();
    await connect(last, port, ofSecond, false, second);
  });
});

test('after kill -9 a device goes on as the one that it proved to be, and not when its authority is gone', async () => {
  await using client = await openClient();
  configure({});
  const first = await started();
  const { port } = first;
  await connect(client, port, device);
  await ask(client, port);
  // A stop stores it at once.
  first.gateway.child.kill('SIGTERM');
  await first.gateway.end();
  configure({ port });
  const killed = (await started()).gateway;
  await ask(client, port);
  killed.child.kill('SIGKILL');
  await killed.end();
  const again = (await started()).gateway;
  await ask(client, port);
  assert.ok(!again.lines.some(({ event }) => event === 'dtls.opened'));
  const register = (endpoint: string) =>
    client.coap.request('127.0.0.1', port, {
      code: Code.POST,
      options: [
        text(Option.UriPath, 'rd'),
        ...[`ep=${endpoint}`, 'lt=60', 'lwm2m=1.1', 'b=U'].map((each) => text(Option.UriQuery, each)),
      ],
      payload: Buffer.from('</1/0>,</3/0>'),
      timeout: 20_000,
    });
  assert.equal((await register('two')).code, Code.Forbidden);
  assert.equal((await register('urn:dev:ops:32473-one')).code, Code.Created);
  again.child.kill('SIGTERM');
  await again.end();
  configure({ port, authorities: [secondFile] });
  await using last = (await started()).gateway;
  await assert.rejects(ask(client, port, 3000), /no response/);
  assert.ok(!last.lines.some(({ event }) => event === 'dtls.opened'));
});

test('a clock before the dates of the certificates is told, and devices get in all the same', async () => {
  const late = authority('Late root', { from: new Date('2040-01-01') });
  const own = issue({ commonNames: ['localhost'], dnsNames: ['localhost'] }, late);
  configure({ own, authorities: [file('late.pem', late.pem)] });
  const { gateway, port } = await started();
  await using _gateway = gateway;
  await gateway.until('dtls.clock-unset', { least: '2040-01-01T00:00:00.000Z' });
  await using client = await openClient();
  await connect(client, port, issue({ commonNames: ['two'] }, late), false, late);
  await ask(client, port);
  await using expired = await openClient();
  const old = issue({ commonNames: ['two'], until: new Date('2039-01-01') }, late);
  await assert.rejects(connect(expired, port, old, false, late), /alert 45/);
});

describe('--check', () => {
  const check = () => {
    const { status, stderr } = spawnSync(process.execPath, [
      ...['src/cli/main.ts', 'gateway', '--check', '--config', config],
    ]);
    return status === 0 ? 'valid' : stderr.toString();
  };
  const key = join(folder, 'gateway.key');
  const other = issue({ commonNames: ['other'] });

  test('accepts what fits', () => {
    configure({});
    assert.equal(check(), 'valid');
  });

  test('refuses what does not', () => {
    configure({});
    chmodSync(key, 0o640);
    assert.match(check(), /coaps\.key-file: other users have rights to .* \(mode 640\); run chmod 600 on it/);
    configure({});
    file('gateway.key', other.keyPem);
    assert.match(check(), /is not the key of the certificate/);
    configure({ authorities: [file('not-ca.pem', device.pem)] });
    assert.match(check(), /is not one of an authority/);
    configure({ own: issue({ commonNames: ['localhost'], curve: 'P-384' }, root) });
    assert.match(check(), /the key is not an elliptic curve key on P-256/);
    configure({ rawKeys: { a: raw.publicPem, b: raw.publicPem } });
    assert.match(check(), /b has the same key as a/);
    configure({ rawKeys: { a: issue({ curve: 'P-384' }).publicPem } });
    assert.match(check(), /the key of a is not an elliptic curve key on P-256/);
    configure({ rawKeys: { a: Buffer.from('no key').toString('base64') } });
    assert.match(check(), /the key of a cannot be read/);
    configure({ coaps: `ca-files = ["${rootFile}"]`, rawKeys: {} });
    assert.match(check(), /key-file is missing/);
    configure({ coaps: `key-file = "${key}"`, rawKeys: {} });
    // Devices join by their keys.
    assert.match(check(), /valid/);
    configure({ own: issue({ until: new Date('2021-01-01') }, root) });
    assert.match(check(), /expired on 2021-01-01/);
  });
});
