import { createPublicKey, type KeyObject, sign } from 'node:crypto';

/** An element of DER (X.690): tag, length, content. */
function element(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const head =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...head]), content]);
}

const sequence = (...parts: readonly Uint8Array[]) => element(0x30, ...parts);
const objectId = (digits: string) => element(0x06, Buffer.from(digits, 'hex'));
/** Object identifiers 2.5.4.3 and 1.2.840.10045.4.3.2. */
const commonName = objectId('550403');
const ecdsaWithSha256 = sequence(objectId('2a8648ce3d040302'));

/**
 * A certificate request (PKCS#10, RFC 2986) in DER, signed by the key that it is for.
 * @param key private key of P-256
 * @param name common name of the subject, at most 64 characters
 */
export function certificateRequest(key: KeyObject, name: string): Buffer {
  const subject = sequence(element(0x31, sequence(commonName, element(0x0c, Buffer.from(name)))));
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const version = element(0x02, Buffer.from([0]));
  const attributes = element(0xa0);
  const wanted = sequence(version, subject, publicKey, attributes);
  const signature = element(0x03, Buffer.from([0]), sign('sha256', wanted, key));
  return sequence(wanted, ecdsaWithSha256, signature);
}
