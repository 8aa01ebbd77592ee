import { createHmac, hash, timingSafeEqual } from 'node:crypto';

/** The hash of all parts together. One call of `hash` costs a third of an object of `createHash`. */
const md5 = (...parts: readonly (string | Uint8Array)[]): Buffer => {
  const octets = parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part));
  return hash('md5', octets.length === 1 ? octets[0]! : Buffer.concat(octets), 'buffer');
};

/** Credential of syncml:auth-md5: B64(H(B64(H(name:secret)):nonce)) (OMA DM security 1.2.1, section 5.3). */
export const md5Credential = (name: string, secret: string, nonce: Uint8Array): string =>
  md5(`${md5(`${name}:${secret}`).toString('base64')}:`, nonce).toString('base64');

/** Credential of syncml:auth-basic: B64(name:secret) (OMA DM security 1.2.1, section 5.3). */
export const basicCredential = (name: string, secret: string): string =>
  Buffer.from(`${name}:${secret}`).toString('base64');

/**
 * MAC of syncml:auth-MAC: B64(H(B64(H(name:secret)):nonce:B64(H(body)))) (OMA DM security 1.2.1, section 5.4).
 * @param body the message as it is transported
 */
export const messageMac = (name: string, secret: string, nonce: Uint8Array, body: Uint8Array): string =>
  md5(`${md5(`${name}:${secret}`).toString('base64')}:`, nonce, `:${md5(body).toString('base64')}`).toString(
    'base64',
  );

/**
 * Digest of Package #0: H(B64(H(ServerID:password)):nonce:B64(H(trigger))), 16 octets (OMA DM notification 1.2.1,
 * section 6.2).
 * @param trigger the part of Package #0 after the digest
 */
export const notificationDigest = (
  serverId: string,
  secret: string,
  nonce: Uint8Array,
  trigger: Uint8Array,
): Buffer =>
  md5(`${md5(`${serverId}:${secret}`).toString('base64')}:`, nonce, `:${md5(trigger).toString('base64')}`);

/**
 * MAC of a bootstrap: HMAC-SHA1 under the shared secret, as 40 hexadecimal digits in upper case (OMA DM security 1.2.1,
 * section 5.7.2).
 * @param coded the bootstrap as it is transported
 */
export const bootstrapMac = (secret: Uint8Array | string, coded: Uint8Array): string =>
  createHmac('sha1', secret).update(coded).digest('hex').toUpperCase();

/** Compares secrets. The time does not depend on where they differ; a string is compared as UTF-8. */
export function sameBytes(a: string | Uint8Array, b: string | Uint8Array): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
