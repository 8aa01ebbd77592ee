import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

const md5 = (...parts: (string | Uint8Array)[]): Buffer => {
  const hash = createHash('md5');
  for (const part of parts) hash.update(part);
  return hash.digest();
};

/** syncml:auth-md5: B64(H(B64(H(name:secret)):nonce)) (OMA DM security 1.2.1, section 5.3). */
export const md5Credential = (name: string, secret: string, nonce: Uint8Array): string =>
  md5(`${md5(`${name}:${secret}`).toString('base64')}:`, nonce).toString('base64');

/** syncml:auth-basic: B64(name:secret) (section 5.3). */
export const basicCredential = (name: string, secret: string): string =>
  Buffer.from(`${name}:${secret}`).toString('base64');

/** syncml:auth-MAC: B64(H(B64(H(name:secret)):nonce:B64(H(body)))), over the package as it goes over the wire (section 5.4). */
export const messageMac = (name: string, secret: string, nonce: Uint8Array, body: Uint8Array): string =>
  md5(`${md5(`${name}:${secret}`).toString('base64')}:`, nonce, `:${md5(body).toString('base64')}`).toString(
    'base64',
  );

/** Digest of Package #0: H(B64(H(ServerID:password)):nonce:B64(H(trigger))) (OMA DM notification 1.2.1, section 6.2). */
export const notificationDigest = (
  serverId: string,
  secret: string,
  nonce: Uint8Array,
  trigger: Uint8Array,
): Buffer =>
  md5(`${md5(`${serverId}:${secret}`).toString('base64')}:`, nonce, `:${md5(trigger).toString('base64')}`);

/** MAC of a bootstrap package: HMAC-SHA1 under the shared secret, as hexadecimal digits (OMA DM security, section 5.7.2). */
export const bootstrapMac = (secret: Uint8Array | string, coded: Uint8Array): string =>
  createHmac('sha1', secret).update(coded).digest('hex').toUpperCase();

/** In a time that does not tell where they differ. */
export function sameBytes(a: string | Uint8Array, b: string | Uint8Array): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)];
  return left.length === right.length && timingSafeEqual(left, right);
}
