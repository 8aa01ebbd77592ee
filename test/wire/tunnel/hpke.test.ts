import assert from 'node:assert/strict';
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { openSealed, pointOf, sealTo } from '../../../src/wire/tunnel/hpke.ts';

const hex = (digits: string) => Buffer.from(digits, 'hex');

/** RFC 9180, appendix A.3.1: base mode, first message. */
const vector = {
  info: hex('4f6465206f6e2061204772656369616e2055726e'),
  ephemeral: {
    point: hex(
      '04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4',
    ),
    secret: hex('4995788ef4b9d6132b249ce59a77281493eb39af373d236a1fe415cb0c2d7beb'),
  },
  recipient: {
    point: hex(
      '04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a826a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0',
    ),
    secret: hex('f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2'),
  },
  plain: hex('4265617574792069732074727574682c20747275746820626561757479'),
  aad: hex('436f756e742d30'),
  cipher: hex('5ad590bb8baa577f8619db35a36311226a896e7342a6d836d8b7bcd2f20b6c7f9076ac232e3ab2523f39513434'),
};

const privateKey = ({ point, secret }: { point: Buffer; secret: Buffer }) =>
  createPrivateKey({
    format: 'jwk',
    key: {
      kty: 'EC',
      crv: 'P-256',
      x: point.subarray(1, 33).toString('base64url'),
      y: point.subarray(33).toString('base64url'),
      d: secret.toString('base64url'),
    },
  });

test('the vector of RFC 9180, appendix A.3.1', () => {
  const recipient = privateKey(vector.recipient);
  const ephemeral = privateKey(vector.ephemeral);
  const sealed = sealTo(createPublicKey(recipient), vector.info, vector.plain, vector.aad, ephemeral);
  assert.deepEqual(sealed, Buffer.concat([vector.ephemeral.point, vector.cipher]));
  assert.deepEqual(openSealed(recipient, vector.info, sealed, vector.aad), vector.plain);
});

test('what was changed, cut, sealed to another key or for another purpose does not open', () => {
  const own = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const info = Buffer.from('purpose');
  const sealed = sealTo(own.publicKey, info, Buffer.from('secret'));
  assert.equal(openSealed(own.privateKey, info, sealed).toString(), 'secret');
  const refused = { code: 'malformed' };
  for (let at = 0; at < sealed.length; at++) {
    const changed = Buffer.from(sealed);
    changed[at]! ^= 1;
    assert.throws(() => openSealed(own.privateKey, info, changed), refused, `byte ${at}`);
    assert.throws(() => openSealed(own.privateKey, info, sealed.subarray(0, at)), refused, `cut at ${at}`);
  }
  assert.throws(() => openSealed(other.privateKey, info, sealed), refused);
  assert.throws(() => openSealed(own.privateKey, Buffer.from('another'), sealed), refused);
  assert.equal(pointOf(own.publicKey).length, 65);
});
