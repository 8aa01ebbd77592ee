import assert from 'node:assert/strict';
import { createPublicKey, generateKeyPairSync, type KeyObject, X509Certificate } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemEntropy } from '../../../src/base/entropy.ts';
import { BoardIdentity } from '../../../src/gateway/northbound/board-identity.ts';
import { CertificateAuthority } from '../../../src/headend/certificate-authority.ts';
import { gatewayTopics } from '../../../src/wire/tunnel/topics.ts';
import { LeapClock } from '../../leap-clock.ts';
import { newAuthority } from '../../peers/certificates.ts';

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

/** A board that is enrolled as `gw-1`, and an authority that issues certificates. */
async function enrolled(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-identity-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const clock = new LeapClock();
  const at = (name: string) => {
    const own = mkdtempSync(join(folder, name));
    return new CertificateAuthority(newAuthority(own), { clock, entropy: systemEntropy });
  };
  const issue = async (name: string, key: KeyObject, authority: CertificateAuthority) => {
    const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' });
    const { chain } = await authority.issue(name, publicKey, 20);
    return chain.split(/(?<=-----END CERTIFICATE-----)\n/).filter((one) => one.trim() !== '');
  };
  const der = (pem: string | undefined) => new X509Certificate(pem ?? '').raw;
  const authority = at('authority');
  const identity = new BoardIdentity(join(folder, 'identity'));
  const chain = (await issue('gw-1', identity.key(), authority)).map(der);
  const { state, up, down } = gatewayTopics('gw-1');
  const secrets = { clientSecret: 'client', serverSecret: 'server' };
  identity.store(
    { gateway: 'gw-1', chain, server: 'dm.example', ...secrets, topics: { state, up, down } },
    'gw-1',
  );
  const certificate = async (name: string, key: KeyObject, by = authority) =>
    der((await issue(name, key, by))[0]);
  return { folder, clock, identity, certificate, other: at('other') };
}

test('a board believes the certificate of its successor, and no other one', async (t) => {
  const { clock, identity, certificate, other } = await enrolled(t);
  clock.moveWall(60_000);
  assert.equal(identity.isReplacedBy(await certificate('gw-1', newKey()), 'gw-1'), true);
  assert.equal(
    identity.isReplacedBy(await certificate('gw-1', identity.key()), 'gw-1'),
    false,
    'its own key',
  );
  assert.equal(identity.isReplacedBy(await certificate('gw-2', newKey()), 'gw-1'), false, 'another name');
  assert.equal(
    identity.isReplacedBy(await certificate('gw-1', newKey(), other), 'gw-1'),
    false,
    'another issuer',
  );
  clock.moveWall(-600_000);
  assert.equal(identity.isReplacedBy(await certificate('gw-1', newKey()), 'gw-1'), false, 'a predecessor');
  assert.throws(() => identity.isReplacedBy(Buffer.from('garbage'), 'gw-1'), { code: 'malformed' });
  assert.ok(identity.account(), 'it has its account meanwhile');
});

test('a board that gives up keeps its key and is not enrolled, also after a restart', async (t) => {
  const { folder, identity } = await enrolled(t);
  const key = identity.key().export({ type: 'pkcs8', format: 'pem' });
  identity.giveUp();
  const again = new BoardIdentity(join(folder, 'identity'));
  assert.equal(again.account(), undefined);
  assert.equal(again.key().export({ type: 'pkcs8', format: 'pem' }), key);
  assert.ok(existsSync(join(folder, 'identity/enrolled.json.replaced')));
});
