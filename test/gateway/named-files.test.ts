import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { asPosternError } from '../../src/base/errors.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { LiveSettings } from '../../src/gateway/live-settings.ts';
import { claimOf } from '../../src/gateway/northbound/enrolment.ts';
import { apiIdentity } from '../../src/headend/api-identity.ts';
import { CertificateAuthority } from '../../src/headend/certificate-authority.ts';
import { authority, issue } from '../wire/secure/dtls/authority.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-named-files-'));
after(() => rmSync(folder, { recursive: true }));
let count = 0;
function file(content: string): string {
  const path = join(folder, `file-${count++}.pem`);
  writeFileSync(path, content);
  chmodSync(path, 0o600);
  return path;
}

const root = authority('Test root');
const own = issue({ commonNames: ['gw-1'] }, root);
const passphrase = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  privateKeyEncoding: { type: 'pkcs8', format: 'pem', cipher: 'aes-128-cbc', passphrase: 'secret' },
  publicKeyEncoding: { type: 'spki', format: 'pem' },
}).privateKey;
const otherCurve = generateKeyPairSync('ec', {
  namedCurve: 'P-384',
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  publicKeyEncoding: { type: 'spki', format: 'pem' },
});
const broken = (pem: string) => pem.replace(/\n[^-\n]{20}/, '\n....................');
const otherKey = issue({ commonNames: ['x'] }, root).keyPem;

const good = { ca: file(root.pem), cert: file(own.pem), key: file(own.keyPem), public: file(own.publicPem) };
const cert = good.cert;

type Tables = Readonly<Record<string, unknown>>;
const gateway = (tables: Tables) => () =>
  new LiveSettings(
    checkConfig(
      gatewayConfigSchema,
      {
        gateway: { id: 'gw-1', state: ':memory:' },
        mqtt: { url: 'mqtts://127.0.0.1:1' },
        'dm-server': { id: 'dm.example', 'client-secret': 'a'.repeat(16), 'server-secret': 'b'.repeat(16) },
        ...tables,
      },
      'test',
    ),
  );
const mqtt = (more: Tables) => gateway({ mqtt: { url: 'mqtts://127.0.0.1:1', ...more } });
const coaps = (more: Tables) => gateway({ coaps: { 'key-file': good.key, ...more } });
const http = (more: Tables) => gateway({ http: { 'tls-cert': good.cert, 'tls-key': good.key, ...more } });
const update = (more: Tables) =>
  gateway({ update: { slots: 'directory', directory: folder, authority: good.ca, ...more } });
const headendAuthority = (more: Tables) => () =>
  new CertificateAuthority(
    { 'ca-cert': good.ca, 'ca-key': file(root.keyPem), ...more } as never,
    {} as never,
  );

const noCertificate = [own.keyPem, 'there is no certificate in it'] as const;
const brokenCertificate = [broken(own.pem), 'it holds no certificate that can be read'] as const;
const noKey = [own.pem, 'it holds no private key that can be read'] as const;
const locked = [passphrase, /^it has a passphrase.*openssl pkey/] as const;
const curve = [otherCurve.privateKey, /not an elliptic curve key on P-256; make one by openssl/] as const;

type Case = readonly [
  key: string,
  load: (path: string) => () => unknown,
  ...faults: (readonly [string, string | RegExp])[],
];
const cases: readonly Case[] = [
  ['mqtt.ca', (ca) => mqtt({ ca }), noCertificate, brokenCertificate],
  ['mqtt.cert', (path) => mqtt({ cert: path, key: good.key }), noCertificate, brokenCertificate],
  ['mqtt.key', (key) => mqtt({ cert, key }), noKey, locked],
  ['coaps.key-file', (path) => coaps({ 'key-file': path }), noKey, locked, curve],
  ['coaps.certificate-file', (path) => coaps({ 'certificate-file': path }), noCertificate, brokenCertificate],
  [
    'coaps.ca-files',
    (path) => coaps({ 'certificate-file': cert, 'ca-files': [good.ca, path] }),
    noCertificate,
    brokenCertificate,
    [own.pem, /is not one of an authority$/],
  ],
  [
    'coaps.raw-key.public-key-file',
    (path) => coaps({ 'raw-key': [{ identity: 'a', 'public-key-file': path }] }),
    [broken(own.publicPem), 'the key of a cannot be read'],
    [otherCurve.publicKey, /^the key of a is not an elliptic curve key on P-256/],
  ],
  ['http.tls-cert', (path) => http({ 'tls-cert': path }), noCertificate, brokenCertificate],
  ['http.tls-key', (path) => http({ 'tls-key': path }), noKey, locked],
  ['http.client-ca', (path) => http({ 'client-ca': path }), noCertificate, brokenCertificate],
  ['images.ca', (ca) => gateway({ images: { ca } }), noCertificate, brokenCertificate],
  ['update.authority', (path) => update({ authority: path }), noCertificate, brokenCertificate],
  ['update.second-authority', (path) => update({ 'second-authority': path }), noCertificate],
  ['update.ca', (ca) => update({ ca }), noCertificate, brokenCertificate],
  ['enrolment.cert', (path) => () => claimOf(path), noCertificate, brokenCertificate],
  ['enrolment.ca-cert', (path) => headendAuthority({ 'ca-cert': path }), noCertificate, brokenCertificate],
  ['enrolment.ca-key', (path) => headendAuthority({ 'ca-key': path }), noKey, locked],
  [
    'api.tls-cert',
    (path) => () => apiIdentity({ 'tls-cert': path, 'tls-key': good.key } as never),
    noCertificate,
    brokenCertificate,
  ],
  ['api.tls-key', (path) => () => apiIdentity({ 'tls-cert': cert, 'tls-key': path } as never), noKey, locked],
];

const messageOf = (load: () => unknown): string => {
  try {
    load();
    return 'it was taken';
  } catch (thrown) {
    const { code, message } = asPosternError(thrown);
    assert.equal(code, 'configuration', message);
    return message;
  }
};

describe('each fault of a file with a key or certificates names the key of the configuration and the file', () => {
  for (const [key, load, ...faults] of cases)
    test(key, () => {
      const path = file('');
      assert.equal(messageOf(load(path)), `${key}: ${path} holds nothing in PEM`);
      for (const [content, fault] of faults) {
        writeFileSync(path, content);
        const message = messageOf(load(path));
        assert.ok(message.startsWith(`${key}: ${path}: `), message);
        const rest = message.slice(`${key}: ${path}: `.length);
        if (typeof fault === 'string') assert.equal(rest, fault);
        else assert.match(rest, fault);
      }
    });

  const pairs = {
    'mqtt.key': (key: string) => mqtt({ cert, key }),
    'coaps.key-file': (path: string) => coaps({ 'key-file': path, 'certificate-file': cert }),
    'http.tls-key': (path: string) => http({ 'tls-key': path }),
    'api.tls-key': (path: string) => () => apiIdentity({ 'tls-cert': cert, 'tls-key': path } as never),
  };
  for (const [key, load] of Object.entries(pairs))
    test(`${key} of another certificate`, () => {
      const path = file(otherKey);
      assert.equal(messageOf(load(path)), `${key}: ${path} is not the key of the certificate ${cert}`);
    });

  test('right files are taken', () => {
    for (const load of [
      mqtt({ ca: good.ca, cert, key: good.key }),
      http({ 'client-ca': good.ca }),
      update({}),
    ])
      assert.equal(messageOf(load), 'it was taken');
    assert.equal(messageOf(coaps({ 'certificate-file': cert, 'ca-files': [good.ca] })), 'it was taken');
  });
});
