import { createECDH, type ECDH } from 'node:crypto';
import { Alert, DtlsFailure } from './alerts.ts';
import { Reader, uint, vector } from './bytes.ts';
import { secp256r1 } from './extensions.ts';

/** Type of curve parameters that names a group (RFC 8422 section 5.4). */
const namedCurve = 3;

/** Longest identity of a pre-shared key (RFC 4279 section 5.3). */
const mostIdentity = 128;

const ephemeral = (): ECDH => createECDH('prime256v1');

/** An own key pair for one handshake, on the curve P-256. */
export class EphemeralKey {
  readonly #pair = ephemeral();
  /** The public point, uncompressed. */
  readonly point = this.#pair.generateKeys();

  /** The secret shared with the holder of a point. @throws {DtlsFailure} `IllegalParameter` for a point off the curve */
  secretWith(point: Buffer): Buffer {
    try {
      return this.#pair.computeSecret(point);
    } catch {
      throw new DtlsFailure(Alert.IllegalParameter, 'the point of the peer is not on the curve');
    }
  }
}

/** A Diffie-Hellman share of the server: group and point (RFC 8422 section 5.4). */
export const shareBytes = (point: Buffer): Buffer =>
  Buffer.concat([uint(namedCurve, 1), uint(secp256r1, 2), vector(1, point)]);

/** Reads a share of the server. @throws {DtlsFailure} */
export function readShare(reader: Reader): Buffer {
  if (reader.uint(1) !== namedCurve || reader.uint(2) !== secp256r1)
    throw new DtlsFailure(Alert.IllegalParameter, 'the server takes a group that was not offered');
  return reader.vector(1, 1);
}

/** The body of a ServerKeyExchange with a Diffie-Hellman share (RFC 5489 section 2). No identity hint is given. */
export const serverShareBytes = (point: Buffer): Buffer => Buffer.concat([vector(2), shareBytes(point)]);

/**
 * Reads a ServerKeyExchange: a hint, which says nothing here (RFC 4279 section 5.2), and the server's point where the key exchange
 * has one.
 * @throws {DtlsFailure}
 */
export function readServerShare(body: Buffer, hasShare: boolean): Buffer | undefined {
  const reader = new Reader(body);
  reader.vector(2);
  const point = hasShare ? readShare(reader) : undefined;
  reader.end();
  return point;
}

/** What a client says in its ClientKeyExchange. */
export interface ClientShare {
  readonly identity: Buffer;
  readonly point: Buffer | undefined;
}

/** The body of a ClientKeyExchange: identity, and a point where the key exchange has one (RFC 4279 section 2, RFC 5489 section 2). */
export const clientShareBytes = ({ identity, point }: ClientShare): Buffer =>
  Buffer.concat([vector(2, identity), ...(point ? [vector(1, point)] : [])]);

/** Reads a ClientKeyExchange. @throws {DtlsFailure} */
export function readClientShare(body: Buffer, hasShare: boolean): ClientShare {
  const reader = new Reader(body);
  const identity = reader.vector(2, 0, mostIdentity);
  const point = hasShare ? reader.vector(1, 1) : undefined;
  reader.end();
  return { identity, point };
}

/** The body of a ClientKeyExchange without an identity (RFC 8422 section 5.7). */
export const clientPointBytes = (point: Buffer): Buffer => vector(1, point);

/** Reads a ClientKeyExchange without an identity. @throws {DtlsFailure} */
export function readClientPoint(body: Buffer): Buffer {
  const reader = new Reader(body);
  const point = reader.vector(1, 1);
  reader.end();
  return point;
}
