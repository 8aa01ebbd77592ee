import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { systemEntropy } from '../../src/base/entropy.ts';
import { certificateRequest } from '../../src/gateway/northbound/certificate-request.ts';
import { CertificateAuthority } from '../../src/headend/certificate-authority.ts';
import { LeapClock } from '../leap-clock.ts';
import { newAuthority } from '../peers/certificates.ts';

const run = (...args: readonly string[]) => execFileSync('openssl', args, { stdio: 'pipe' }).toString();

function inFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'postern-ca-'));
  return { folder, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}

const key = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

const authority = (folder: string, algorithm?: readonly string[], clock = new LeapClock()) =>
  new CertificateAuthority(newAuthority(folder, algorithm), { clock, entropy: systemEntropy });

test('openssl reads and verifies the request of a board', () => {
  using place = inFolder();
  const file = join(place.folder, 'request.der');
  writeFileSync(file, certificateRequest(key(), 'gw-1'));
  const text = run('req', '-inform', 'DER', '-in', file, '-noout', '-text', '-verify');
  assert.match(text, /Subject: CN = gw-1/);
  assert.match(text, /ecdsa-with-SHA256/);
});

for (const [name, algorithm] of [
  ['P-256', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']],
  ['P-384', ['ec', '-pkeyopt', 'ec_paramgen_curve:P-384']],
  ['RSA', ['rsa:2048']],
] as const)
  test(`openssl verifies what an authority with a key of ${name} issues, for TLS clients alone`, async () => {
    using place = inFolder();
    const issuer = authority(place.folder, algorithm);
    const board = key();
    const checked = await issuer.check(certificateRequest(board, 'gw-1'));
    assert.equal(checked.name, 'gw-1');
    const { chain, expires } = await issuer.issue(checked.name, checked.publicKey, 90);
    const file = join(place.folder, 'gw.pem');
    writeFileSync(file, chain);
    const ca = join(place.folder, 'ca.pem');
    assert.match(run('verify', '-x509_strict', '-CAfile', ca, '-purpose', 'sslclient', file), /OK/);
    assert.throws(() => run('verify', '-CAfile', ca, '-purpose', 'sslserver', file));
    const issued = new X509Certificate(chain);
    assert.ok(issued.checkPrivateKey(board));
    assert.equal(issued.ca, false);
    assert.equal(issued.subject, 'CN=gw-1');
    assert.equal(Math.round(expires / 1000), issued.validToDate.getTime() / 1000);
    assert.equal(chain.match(/BEGIN CERTIFICATE/g)?.length, 2, 'the chain has the authority');
  });

test('a certificate does not outlive its authority', async () => {
  using place = inFolder();
  const issuer = authority(place.folder);
  const { publicKey } = await issuer.check(certificateRequest(key(), 'gw-1'));
  const { expires } = await issuer.issue('gw-1', publicKey, 3650);
  assert.ok(expires < Date.now() + 31 * 86_400_000);
});

test('a request that was changed at any byte, is of another curve, or has a name that no topic can have is refused', async () => {
  using place = inFolder();
  const issuer = authority(place.folder);
  const refused = { code: 'malformed' };
  const request = certificateRequest(key(), 'gw-1');
  const whole = await issuer.check(request);
  for (let at = 0; at < request.length; at++) {
    const changed = Buffer.from(request);
    changed[at]! ^= 0x55;
    // Bytes around what is signed may be read in another way, but never as another request.
    const read = await issuer.check(changed).catch((thrown) => thrown.code);
    if (read !== 'malformed') assert.deepEqual(read, whole, `byte ${at}`);
  }
  const other = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey;
  await assert.rejects(issuer.check(certificateRequest(other, 'gw-1')), refused);
  for (const name of ['', 'a/b', '+', '#', 'x'.repeat(65), 'gw 1'])
    await assert.rejects(issuer.check(certificateRequest(key(), name)), refused, name);
  await assert.rejects(issuer.check(Buffer.alloc(0)), refused);
});

test('an authority whose files do not belong together is refused', () => {
  using one = inFolder();
  using other = inFolder();
  const files = { ...newAuthority(one.folder), 'ca-key': newAuthority(other.folder)['ca-key'] };
  const machine = { clock: new LeapClock(), entropy: systemEntropy };
  assert.throws(() => new CertificateAuthority(files, machine), {
    code: 'configuration',
    message: /not the key/,
  });
});
