import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { PosternError } from '../../base/errors.ts';

/**
 * HPKE (RFC 9180), base mode, one message: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-128-GCM. The primitives are those of
 * node:crypto.
 */
const suite = {
  kem: Buffer.from('4b454d0010', 'hex'),
  whole: Buffer.from('48504b45001000010001', 'hex'),
} as const;
const none = Buffer.alloc(0);
/** Bytes of a point of P-256 that is not compressed, and of a tag of GCM. */
const pointBytes = 65;
const tagBytes = 16;

const hmac = (key: Uint8Array, ...parts: readonly Uint8Array[]): Buffer => {
  const digest = createHmac('sha256', key);
  for (const part of parts) digest.update(part);
  return digest.digest();
};

/** LabeledExtract (section 4). */
const extract = (id: Buffer, salt: Uint8Array, label: string, input: Uint8Array): Buffer =>
  hmac(salt, Buffer.from('HPKE-v1'), id, Buffer.from(label), input);

/** LabeledExpand (section 4), for at most the 32 bytes of one round of HKDF. */
function expand(id: Buffer, key: Uint8Array, label: string, info: Uint8Array, bytes: number): Buffer {
  const length = Buffer.from([0, bytes]);
  const round = Buffer.from([1]);
  return hmac(key, length, Buffer.from('HPKE-v1'), id, Buffer.from(label), info, round).subarray(0, bytes);
}

/** A public key of P-256 as a point that is not compressed (SEC 1, section 2.3.3). */
export function pointOf(key: KeyObject): Buffer {
  const { x = '', y = '' } = key.export({ format: 'jwk' });
  return Buffer.concat([Buffer.from([4]), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')]);
}

const keyOf = (point: Uint8Array): KeyObject =>
  createPublicKey({
    format: 'jwk',
    key: {
      kty: 'EC',
      crv: 'P-256',
      x: Buffer.from(point.subarray(1, 33)).toString('base64url'),
      y: Buffer.from(point.subarray(33)).toString('base64url'),
    },
  });

/** Key and nonce of the one message (sections 4.1 and 5.1). */
function scheduleOf(secret: Buffer, encapsulated: Uint8Array, recipient: Uint8Array, info: Uint8Array) {
  const pseudorandom = extract(suite.kem, none, 'eae_prk', secret);
  const context = Buffer.concat([encapsulated, recipient]);
  const shared = expand(suite.kem, pseudorandom, 'shared_secret', context, 32);
  const { whole } = suite;
  const schedule = Buffer.concat([
    Buffer.from([0]),
    extract(whole, none, 'psk_id_hash', none),
    extract(whole, none, 'info_hash', info),
  ]);
  const base = extract(whole, shared, 'secret', none);
  return {
    key: expand(whole, base, 'key', schedule, 16),
    nonce: expand(whole, base, 'base_nonce', schedule, 12),
  };
}

/**
 * Encrypts to the holder of a private key of P-256.
 * @param info what the message is for; it opens only with the same
 * @param ephemeral key pair of this message; for test vectors
 * @returns the encapsulated key of 65 bytes, and the ciphertext behind it
 */
export function sealTo(
  recipient: KeyObject,
  info: Uint8Array,
  plain: Uint8Array,
  aad: Uint8Array = none,
  ephemeral: KeyObject = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
): Buffer {
  const encapsulated = pointOf(createPublicKey(ephemeral));
  const secret = diffieHellman({ privateKey: ephemeral, publicKey: recipient });
  const { key, nonce } = scheduleOf(secret, encapsulated, pointOf(recipient), info);
  const cipher = createCipheriv('aes-128-gcm', key, nonce).setAAD(aad);
  return Buffer.concat([encapsulated, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/**
 * Opens what was sealed to a key.
 * @throws {PosternError} `malformed` when it was sealed to another key or for something else, or was changed
 */
export function openSealed(
  privateKey: KeyObject,
  info: Uint8Array,
  sealed: Uint8Array,
  aad: Uint8Array = none,
): Buffer {
  const end = sealed.length - tagBytes;
  try {
    const encapsulated = sealed.subarray(0, pointBytes);
    const secret = diffieHellman({ privateKey, publicKey: keyOf(encapsulated) });
    const { key, nonce } = scheduleOf(secret, encapsulated, pointOf(createPublicKey(privateKey)), info);
    const decipher = createDecipheriv('aes-128-gcm', key, nonce).setAAD(aad).setAuthTag(sealed.subarray(end));
    return Buffer.concat([decipher.update(sealed.subarray(pointBytes, end)), decipher.final()]);
  } catch (cause) {
    throw new PosternError('malformed', 'it was not sealed to this key, or was changed', { cause });
  }
}
