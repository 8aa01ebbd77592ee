// Whom bundles for slots that are folders are believed. All certificates and revocation lists are made by openssl.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { type BundleSigner, readBundle } from '../../../src/gateway/update/bundle.ts';
import type { BundleTrust } from '../../../src/gateway/update/bundle-trust.ts';
import { listsInForce, withList } from '../../../src/gateway/update/revocation-list.ts';
import { FumoResult } from '../../../src/mo/fumo.ts';
import { certificatesIn } from '../../../src/wire/secure/dtls/certificates.ts';
import { Authority, bundleBy, type CertificateFacts, ofAuthority } from './signing.ts';

const day = 24 * 3600 * 1000;
const ours = new Authority('ours');
const second = new Authority('second');
const good = ours.signer();
// After all certificates have begun.
const now = Date.now() + 60_000;
const seed = Number(process.env.POSTERN_SEED ?? now % 100_000);

describe('whom a bundle is believed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-trust-'));
  const file = join(folder, 'one.bundle');
  after(() => rmSync(folder, { recursive: true }));
  const read = (signers: readonly BundleSigner[], trust: Partial<BundleTrust> = {}) => {
    writeFileSync(file, bundleBy(signers, 'a program', { version: '1.2.3' }));
    return readBundle(file, { authorities: ours.certificate, now, ...trust });
  };
  const refused = (message: RegExp) => ({ result: FumoResult.NotValidated, message });

  for (const [what, facts, message] of [
    ['that has expired', { until: now - day }, /expired/],
    ['that is not yet valid', { from: now + day }, /not valid yet/],
    ['for clients', { purpose: 'clientAuth' }, /does not allow a code signer/],
    ['for mail', { purpose: 'emailProtection' }, /does not allow a code signer/],
    ['for any purpose', { purpose: 'anyExtendedKeyUsage' }, /does not allow a code signer/],
    ['without a purpose', { purpose: '' }, /does not allow a code signer/],
    ['whose key does not sign', { use: 'keyUsage=keyAgreement' }, /does not allow its use/],
    ['with a critical constraint', { use: 'inhibitAnyPolicy=critical,0' }, /critical extension/],
  ] as [string, CertificateFacts, RegExp][])
    test(`not by a certificate ${what}`, () => {
      assert.throws(() => read([ours.signer(facts)]), refused(message));
      read([good]);
    });

  test('a clock in 1970 lets a good signer in, and not one that had expired before the running program came', () => {
    const behind = { now: 0, floor: now };
    read([good], behind);
    assert.throws(() => read([ours.signer({ until: now - day })], behind), refused(/expired/));
    // It began after the last time that is known.
    read([ours.signer({ from: now + day })], behind);
    // Without any floor, a revocation list has a time.
    const list = ours.list(1, []);
    read([good], { now: 0, lists: list });
    assert.throws(
      () => read([ours.signer({ until: now - day })], { now: 0, lists: list }),
      refused(/expired/),
    );
  });

  test('a clock that is ahead refuses until it is right again, and the message has its time', () => {
    assert.throws(() => read([good], { now: now + 50 * 365 * day }), refused(/it is 207\d-.* here/));
    read([good], { now });
  });

  test('an authority that has expired certifies nobody', () => {
    assert.throws(() => read([good], { now: now + 30 * 365 * day }), refused(/expired/));
  });

  test('by an authority between ours and the signer, unless it may not certify', () => {
    const between = (use: string) => {
      const middle = new Authority('middle');
      // The certificate of `middle` by ours, for its own key.
      return { middle, crossed: ours.cross(middle, use) };
    };
    const { middle, crossed } = between(ofAuthority);
    const below = middle.signer();
    read([{ ...below, certificates: [...below.certificates, crossed] }]);
    const { middle: other, crossed: weak } = between('basicConstraints=CA:FALSE');
    const worse = other.signer();
    assert.throws(
      () => read([{ ...worse, certificates: [...worse.certificates, weak] }]),
      refused(/is not one of an authority/),
    );
  });

  describe('revocation', () => {
    const thief = ours.signer();
    const list = ours.list(5, [thief]);
    const bring = (signer: BundleSigner, ...lists: string[]) => ({
      ...signer,
      certificates: [...signer.certificates, ...lists],
    });

    test('a revoked signer is refused, by a list that is kept and by one in the bundle', () => {
      read([thief]);
      assert.throws(() => read([thief], { lists: list }), refused(/ours updates \d+ is revoked/));
      assert.throws(() => read([bring(thief, list)]), refused(/is revoked/));
      const { lists } = read([bring(good, list)]);
      assert.deepEqual(
        lists.map(({ number }) => number),
        [5],
      );
    });

    test('an older list takes the place of no newer one, and neither does another one with its number', () => {
      const older = new Authority('aged');
      const one = older.signer();
      const [early, late] = [older.list(7, []), older.list(8, [one])];
      const trust = { authorities: older.certificate, lists: late };
      for (const brought of [early, older.list(8, [])].map((text) => bring(one, text)))
        assert.throws(() => read([brought], trust), refused(/is revoked/));
      const authorities = certificatesIn(older.certificate);
      assert.throws(() => withList(early, late, authorities), { code: 'conflict' });
      assert.equal(withList(late, late, authorities), late.trim(), 'the same one again is no fault');
      assert.equal(withList(late, early, authorities), late.trim());
    });

    test('a list of somebody else, without a number, changed or cut, is none', () => {
      const theirs = new Authority('theirs').list(9, [good]);
      assert.throws(() => withList(theirs, list, certificatesIn(ours.certificate)), { code: 'conflict' });
      const { bytes, uniform } = seededEntropy(seed);
      const der = Buffer.from(list.split('-----')[2]!, 'base64');
      const pem = (raw: Uint8Array) =>
        `-----BEGIN X509 CRL-----\n${Buffer.from(raw).toString('base64')}\n-----END X509 CRL-----\n`;
      assert.equal(listsInForce(pem(der), certificatesIn(ours.certificate)).length, 1);
      for (let round = 0; round < 300; round++) {
        const changed = Buffer.from(der);
        const at = Math.floor(uniform() * der.length);
        changed[at]! ^= 1 << Math.floor(uniform() * 8);
        const meant = [[5, 1]];
        for (const raw of [changed, der.subarray(0, at), bytes(at)]) {
          const found = listsInForce(pem(raw), certificatesIn(ours.certificate));
          // Behind what is signed there is the name of the algorithm, which is not needed.
          const told = found.map(({ number, revoked }) => [number, revoked.size]);
          const what = `POSTERN_SEED=${seed}, round ${round}, octet ${at}`;
          assert.deepEqual(told, raw === changed && found.length > 0 ? meant : [], what);
        }
      }
      assert.deepEqual(
        listsInForce(ours.list(10, [], now + day, false), certificatesIn(ours.certificate)),
        [],
      );
    });

    test('a list that is about a part of the certificates takes the place of none', () => {
      const own = new Authority('narrow');
      const [whole, narrow] = [own.list(1, []), own.narrowList(2)];
      const authorities = certificatesIn(own.certificate);
      assert.equal(withList(whole, narrow, authorities), whole.trim());
      assert.throws(() => withList(narrow, whole, authorities), { code: 'conflict' });
    });

    test('a list that has ended lets nobody in until there is a newer one', () => {
      const ending = new Authority('ending');
      const one = ending.signer();
      const trust = {
        authorities: ending.certificate,
        lists: ending.list(1, [], now + day),
        now: now + 2 * day,
      };
      assert.throws(() => read([one], trust), refused(/revocation list .* has ended/));
      read([bring(one, ending.list(2, []))], trust);
    });

    test('a list as large as the head of a bundle is read', () => {
      const big = new Authority('big');
      const many = big.longList(3, 900);
      const [found] = listsInForce(many, certificatesIn(big.certificate));
      assert.equal(found?.revoked.size, 900);
    });
  });

  describe('two signers', () => {
    const trust = { secondAuthorities: second.certificate };
    const other = second.signer();

    test('both signatures are needed, each by a signer of its own authority', () => {
      read([good, other], trust);
      assert.throws(() => read([good], trust), refused(/no authority that is trusted/));
      assert.throws(() => read([good, good], trust), refused(/no authority that is trusted/));
      assert.throws(() => read([other, good], trust), refused(/no authority that is trusted/));
      assert.throws(
        () => read([good, second.signer({ purpose: 'clientAuth' })], trust),
        refused(/code signer/),
      );
      assert.throws(() => read([good, second.signer({ until: now - day })], trust), refused(/expired/));
    });

    test('a second signer can be revoked', () => {
      assert.throws(
        () => read([good, other], { ...trust, lists: second.list(1, [other]) }),
        refused(/revoked/),
      );
    });

    test('two certificates of one name are one signer', () => {
      const pair = [ours.signer({}, 'the same'), second.signer({}, 'the same')];
      assert.throws(() => read(pair, trust), refused(/same signer/));
    });

    test('a second signature is no harm where one is enough', () => {
      read([good, other]);
    });

    test('the second signature of another manifest is none', () => {
      const one = bundleBy([good, other], 'a program', { version: '1.2.3' }).toString('latin1').split('\n');
      const two = bundleBy([good, other], 'a program', { version: '1.2.4' }).toString('latin1').split('\n');
      one[2] = `${one[2]!.split(' ')[0]} ${two[2]!.split(' ')[1]}`;
      writeFileSync(file, Buffer.from(one.join('\n'), 'latin1'));
      assert.throws(
        () => readBundle(file, { authorities: ours.certificate, now, ...trust }),
        refused(/signature of the bundle is wrong/),
      );
    });
  });
});
