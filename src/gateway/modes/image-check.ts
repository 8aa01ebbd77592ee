import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { PosternError } from '../../base/errors.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import type { ImageOrder } from '../../mo/image-branch.ts';

/**
 * Verifies hash and signature of an image.
 * @param hash SHA-256 in hexadecimal
 * @param keys public keys; if there are any, the image must be signed by one of them
 * @throws {FumoRefusal} 402 for another hash, 404 without a valid signature
 */
export function checkImage(
  { hash: wanted, signature }: ImageOrder,
  hash: string,
  keys: readonly KeyObject[],
): void {
  if (wanted !== undefined && wanted !== '' && wanted !== hash)
    throw new FumoRefusal(FumoResult.Corrupt, `the SHA-256 is ${hash}`);
  if (keys.length === 0) return;
  const octets = Buffer.from(signature ?? '', 'base64');
  const digest = Buffer.from(hash, 'hex');
  // Ed25519 has a fixed digest algorithm. The other key types need its name.
  const isSigned = keys.some((key) =>
    verify(key.asymmetricKeyType === 'ed25519' ? null : 'sha256', digest, key, octets),
  );
  if (!isSigned)
    throw new FumoRefusal(FumoResult.NotValidated, 'the image has no signature by a trusted key');
}

/**
 * Reads a public key from PEM.
 * @param file name of the file, for the error message
 * @throws {PosternError} `configuration` when it is not a public key
 */
export function readSigningKey(pem: string, file: string): KeyObject {
  try {
    return createPublicKey(pem);
  } catch (cause) {
    throw new PosternError('configuration', `images.signing-keys: ${file} holds no public key`, { cause });
  }
}
