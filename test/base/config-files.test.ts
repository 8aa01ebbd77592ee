import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { checkFiles } from '../../src/base/config-files.ts';
import type { PosternError } from '../../src/base/errors.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { selfSigned } from '../peers/certificates.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-files-'));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string, content?: string | Buffer) => {
  if (content !== undefined) writeFileSync(join(folder, name), content);
  return join(folder, name);
};
selfSigned('gw-1', { key: file('key'), cert: file('cert') });
selfSigned('other', { key: file('other.key'), cert: file('other.cert') });
const pipe = file('pipe');
execFileSync('mkfifo', [pipe]);
const { publicKey } = generateKeyPairSync('ed25519');
file('public', publicKey.export({ format: 'pem', type: 'spki' }));
const locked = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({
  ...{ format: 'pem', type: 'pkcs8' },
  ...{ cipher: 'aes-128-cbc', passphrase: 'sesame' },
});
const pem = readFileSync(file('cert'), 'utf8');
const now = { wall: () => Date.now() as never };

const secret = { 'client-secret': 'long enough 1', 'server-secret': 'long enough 2' };

/** The faults that `--check` finds in a gateway's configuration. */
function faults(tables: Record<string, unknown>, clock = now): string[] {
  const config = checkConfig(
    gatewayConfigSchema,
    {
      gateway: { id: 'gw-1' },
      'dm-server': { id: 'dm.example', ...secret },
      ...tables,
      mqtt: { url: 'mqtts://broker.example', ...(tables.mqtt as object) },
    },
    'gateway.toml',
  );
  try {
    checkFiles(gatewayConfigSchema, config, 'gateway.toml', clock);
    return [];
  } catch (thrown) {
    assert.equal((thrown as PosternError).code, 'configuration');
    return (thrown as PosternError).message.split('\n');
  }
}

const all = {
  mqtt: { ca: file('other.cert'), cert: file('cert'), key: file('key') },
  http: { 'tls-cert': file('cert'), 'tls-key': file('key') },
  images: { ca: file('cert'), 'signing-keys': [file('public')] },
  update: { slots: 'directory', authority: file('cert'), ca: file('cert') },
};

describe('--check reads what the configuration of a gateway names', () => {
  test('files that are in order, and none', () => {
    assert.deepEqual(faults(all), []);
    assert.deepEqual(faults({}), []);
  });

  test('each file that does not exist is named by its key', () => {
    const gone = file('gone');
    const lines = faults({
      mqtt: { ca: gone, cert: gone, key: gone },
      http: { 'tls-cert': gone, 'tls-key': gone },
      images: { ca: gone, 'signing-keys': [file('public'), gone] },
      update: { slots: 'directory', authority: gone, ca: gone },
    });
    const keys = ['mqtt.ca', 'mqtt.cert', 'mqtt.key', 'http.tls-cert', 'http.tls-key', 'images.ca'];
    assert.deepEqual(
      new Set(lines),
      new Set(
        [...keys, 'images.signing-keys[1]', 'update.authority', 'update.ca'].map(
          (key) => `gateway.toml: ${key}: ${gone} cannot be read (ENOENT)`,
        ),
      ),
    );
  });

  for (const [what, odd, words] of [
    ['a folder', folder, 'is a folder, not a file; name a file in it'],
    ['a pipe', pipe, 'is a pipe, not a file; write its content to a file, and name that'],
    ['a device', '/dev/zero', 'is a device or a socket, not a file; name a file'],
  ] as const)
    test(`${what} in place of each file is named by its key, and nothing waits for it`, () => {
      const lines = faults({
        mqtt: { ca: odd, cert: odd, key: odd },
        http: { 'tls-cert': odd, 'tls-key': odd },
        images: { ca: odd, 'signing-keys': [odd] },
        update: { slots: 'directory', authority: odd, ca: odd },
      });
      const keys = ['mqtt.ca', 'mqtt.cert', 'mqtt.key', 'http.tls-cert', 'http.tls-key', 'images.ca'];
      assert.deepEqual(
        new Set(lines),
        new Set(
          [...keys, 'images.signing-keys[0]', 'update.authority', 'update.ca'].map(
            (key) => `gateway.toml: ${key}: ${odd} ${words}`,
          ),
        ),
      );
    });

  for (const [what, tables, fault] of [
    [
      'half a certificate',
      { mqtt: { ca: file('half', pem.slice(0, 200)) } },
      /mqtt\.ca: .*half: it holds no certificate/,
    ],
    [
      'a bundle whose second certificate is broken',
      { mqtt: { ca: file('bundle', `${pem}${pem.replace('MII', 'MIJ')}`) } },
      /mqtt\.ca: .*it holds no certificate that can be read/,
    ],
    [
      'a key as a certificate',
      { images: { ca: file('key') } },
      /images\.ca: .*there is no certificate in it/,
    ],
    [
      'a certificate as a key',
      { mqtt: { cert: file('cert'), key: file('cert') } },
      /mqtt\.key: .*it holds no private key/,
    ],
    [
      'an empty file',
      { update: { slots: 'rauc', authority: file('empty', '') } },
      /update\.authority: .*no certificate/,
    ],
    [
      'a key with a passphrase',
      { mqtt: { cert: file('cert'), key: file('locked', locked) } },
      /mqtt\.key: .*it has a passphrase.*openssl pkey -in OLD -out NEW/,
    ],
    ['a folder', { mqtt: { ca: folder } }, /mqtt\.ca: .* is a folder, not a file; name a file in it$/],
    ['no public key', { images: { 'signing-keys': [file('half')] } }, /signing-keys\[0\]: .*no public key/],
    [
      'the key of another certificate',
      { mqtt: { cert: file('cert'), key: file('other.key') } },
      /mqtt\.key: .*other\.key is not the key of the certificate .*cert/,
    ],
    [
      'the same, over HTTP',
      { http: { 'tls-cert': file('other.cert'), 'tls-key': file('key') } },
      /http\.tls-key: .*is not the key of the certificate/,
    ],
  ] as const)
    test(what, () => {
      const lines = faults(tables);
      assert.equal(lines.length, 1, lines.join('\n'));
      assert.match(lines[0]!, fault);
    });

  test('a file that may not be read', { skip: process.getuid?.() === 0 }, () => {
    chmodSync(file('secret', pem), 0);
    assert.match(faults({ mqtt: { ca: file('secret') } })[0]!, /EACCES/);
  });

  test('a certificate that has expired, or is not valid yet', () => {
    const days = (count: number) => ({ wall: () => (Date.now() + count * 86_400_000) as never });
    assert.match(
      faults({ mqtt: { ca: file('cert') } }, days(40))[0]!,
      /the certificate of CN=gw-1 expired on \d{4}-/,
    );
    assert.match(faults({ mqtt: { ca: file('cert') } }, days(-2))[0]!, /CN=gw-1 is valid from \d{4}-.* on$/);
  });
});

test('the head-end and the reference device name files as well', () => {
  const headend = checkConfig(
    headendConfigSchema,
    { headend: { id: 'dm.example' }, mqtt: { url: 'mqtts://broker.example', ca: file('gone') } },
    'h',
  );
  assert.throws(() => checkFiles(headendConfigSchema, headend, 'h', now), {
    message: /^h: mqtt\.ca: .*ENOENT/,
  });
  const device = checkConfig(
    deviceConfigSchema,
    {
      device: { id: 'd' },
      network: { gateway: 'coap://192.0.2.1' },
      bootstrap: { file: file('gone'), type: 'application/vnd.syncml.dm+wbxml' },
    },
    'd',
  );
  assert.throws(() => checkFiles(deviceConfigSchema, device, 'd', now), {
    message: /^d: bootstrap\.file: .*ENOENT/,
  });
});

test('a URL of the broker that cannot be parsed is a fault of the configuration', () => {
  for (const url of ['mqtt://[::1', 'mqtt://user:%ZZ@broker.example', 'mqtt://broker.example:99999'])
    assert.throws(
      () => checkConfig(headendConfigSchema, { headend: { id: 'dm' }, mqtt: { url } }, 'h'),
      /h: mqtt\.url: expected a URL such as mqtt:/,
    );
});
