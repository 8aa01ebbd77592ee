import { Alert, DtlsFailure } from './alerts.ts';
import { Reader, uint, uintVector, vector } from './bytes.ts';
import { CertificateType, ecdsaSha256 } from './extensions.ts';
import { readShare } from './key-exchange.ts';

/** Most certificates of one chain, the own certificate of the peer included, its trust anchor not. */
export const mostCertificates = 4;

/** Type of a client certificate with an ECDSA key (RFC 8422 section 5.5). */
const ecdsaSign = 64;

/**
 * The body of a Certificate message: a chain, the own certificate first (RFC 5246 section 7.4.2), or one raw public key (RFC 7250
 * section 3).
 */
export const certificateBytes = (type: number, entries: readonly Buffer[]): Buffer =>
  type === CertificateType.RawPublicKey
    ? vector(3, ...entries)
    : vector(3, ...entries.map((entry) => vector(3, entry)));

/**
 * Reads a Certificate message. Returns the chain, or the raw public key alone; nothing when the peer has none.
 * @throws {DtlsFailure} `DecodeError`, or `BadCertificate` for a chain that is too long
 */
export function readCertificate(type: number, body: Buffer): Buffer[] {
  const reader = new Reader(body);
  const content = reader.vector(3);
  reader.end();
  if (type === CertificateType.RawPublicKey) return content.length > 0 ? [content] : [];
  const list = new Reader(content);
  const chain: Buffer[] = [];
  while (list.remaining > 0) {
    if (chain.length === mostCertificates)
      throw new DtlsFailure(Alert.BadCertificate, 'the chain of certificates is too long');
    chain.push(list.vector(3, 1));
  }
  return chain;
}

/**
 * The body of a CertificateRequest (RFC 5246 section 7.4.4). It names no authorities: a constrained client has one certificate, and
 * their names would make the flight longer.
 */
export const certificateRequestBytes = (): Buffer =>
  Buffer.concat([uintVector(1, 1, [ecdsaSign]), uintVector(2, 2, [ecdsaSha256]), vector(2)]);

/** Reads a CertificateRequest. @throws {DtlsFailure} `HandshakeFailure` when it does not take an ECDSA key with SHA-256 */
export function readCertificateRequest(body: Buffer): void {
  const reader = new Reader(body);
  const types = reader.vector(1, 1);
  const algorithms = new Reader(reader.vector(2, 2)).uints(2);
  reader.vector(2);
  reader.end();
  if (!types.includes(ecdsaSign) || !algorithms.includes(ecdsaSha256))
    throw new DtlsFailure(Alert.HandshakeFailure, 'the server takes no certificate with an ECDSA key');
}

/** A signature with its algorithm (RFC 5246 section 4.7): the body of a CertificateVerify. */
export const signatureBytes = (signature: Buffer): Buffer =>
  Buffer.concat([uint(ecdsaSha256, 2), vector(2, signature)]);

/** Reads a signature that is the rest of a message. @throws {DtlsFailure} */
export function readSignature(reader: Reader): Buffer {
  if (reader.uint(2) !== ecdsaSha256)
    throw new DtlsFailure(Alert.IllegalParameter, 'the signature algorithm was not offered');
  const signature = reader.vector(2);
  reader.end();
  return signature;
}

/**
 * Reads a ServerKeyExchange with a signature (RFC 8422 section 5.4).
 * @returns the server's point, the bytes that are signed together with the randoms, and the signature
 * @throws {DtlsFailure}
 */
export function readSignedShare(body: Buffer): { point: Buffer; signed: Buffer; signature: Buffer } {
  const reader = new Reader(body);
  const point = readShare(reader);
  const signed = body.subarray(0, body.length - reader.remaining);
  return { point, signed, signature: readSignature(reader) };
}
