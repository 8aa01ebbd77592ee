import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { type BoardRecord, readAccount, sealAccount } from '../../../src/wire/tunnel/board-account.ts';

const pair = () => generateKeyPairSync('ec', { namedCurve: 'P-256' });
const operator = pair();
const secrets = { clientSecret: 'client-secret-1', serverSecret: 'server-secret-1' };
const record: BoardRecord = { id: 'gw-1', publicKey: '-----BEGIN PUBLIC KEY-----' };
const read = (value: unknown, key = operator.privateKey) => readAccount(JSON.stringify(value), 'f', key);

test('an account opens with the private key of the operator, and differs each time that it is sealed', () => {
  const [one, other] = [0, 1].map(() => sealAccount(record, secrets, operator.publicKey));
  assert.deepEqual(read(one), { id: 'gw-1', ...secrets });
  assert.notEqual(one!.sealed, other!.sealed);
});

test('it opens with no other key, not for another board, and not when a bit of it was changed', () => {
  const sealed = sealAccount(record, secrets, operator.publicKey);
  const why = /was not sealed to this key, or was changed/;
  assert.throws(() => read(sealed, pair().privateKey), why);
  assert.throws(() => read({ ...sealed, id: 'gw-2' }), why);
  assert.throws(() => read({ ...sealed, publicKey: 'x' }), why);
  const bytes = Buffer.from(sealed.sealed ?? '', 'base64');
  for (let at = 0; at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed[at]! ^= 1;
    assert.throws(() => read({ ...sealed, sealed: changed.toString('base64') }), why, `octet ${at}`);
  }
  for (const length of [0, 64, 65, bytes.length - 1])
    assert.throws(() => read({ ...sealed, sealed: bytes.subarray(0, length).toString('base64') }), why);
});

test('a file without an account, without a key for it, or that is something else says so', () => {
  const fails = (text: string, why: RegExp) => assert.throws(() => readAccount(text, 'f', undefined), why);
  fails(JSON.stringify(record), /gw-1 has made no account/);
  fails(JSON.stringify(sealAccount(record, secrets, operator.publicKey)), /give the private key/);
  for (const text of ['', '{', 'id: gw-1']) fails(text, /no enrolment\.json/);
  for (const value of [null, [], 7, {}, { ...record, id: 'a b' }, { ...record, more: 1 }])
    fails(JSON.stringify(value), /^.*f: /);
  fails(JSON.stringify({ ...record, secrets: { ...secrets, clientSecret: 'x' } }), /a secret of 8/);
  fails(JSON.stringify({ ...record, sealed: 'A'.repeat(20_000) }), /sealed secrets/);
});
