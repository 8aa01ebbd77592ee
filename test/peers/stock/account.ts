import { createHash } from 'node:crypto';
import { type Part, part, textAt } from './markup.ts';

const b64 = (octets: Buffer | string) => Buffer.from(octets as string).toString('base64');
const md5 = (...parts: readonly (string | Buffer)[]): Buffer => {
  const hash = createHash('md5');
  for (const each of parts) hash.update(each);
  return hash.digest();
};

/** What a party shows: its name and secret (`basic`), or a digest of both with a nonce (OMA DM security 1.2.1, section 5.3). */
export const proofOf = (scheme: 'basic' | 'md5', name: string, secret: string, nonce: Buffer): string =>
  scheme === 'basic' ? b64(`${name}:${secret}`) : b64(md5(`${b64(md5(`${name}:${secret}`))}:`, nonce));

export const credential = (scheme: 'basic' | 'md5', proof: string): Part =>
  part('Cred', [
    part('Meta', [part('Format', 'b64'), part('Type', `syncml:auth-${scheme}`)]),
    part('Data', proof),
  ]);

export const challenge = (nonce: Buffer): Part =>
  part('Chal', [
    part('Meta', [part('Format', 'b64'), part('Type', 'syncml:auth-md5'), part('NextNonce', b64(nonce))]),
  ]);

/** The nonce of a challenge, as octets, whether the codec has decoded it or not. */
export function nonceIn(status: Part | undefined, find: (from: Part | undefined) => Part | undefined) {
  const found = find(status);
  if (!found) return undefined;
  return Buffer.isBuffer(found.content) ? found.content : Buffer.from(textAt(found) ?? '', 'base64');
}
