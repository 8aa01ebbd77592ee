import { ownBytes } from '../../../base/own-bytes.ts';
import { Alert, DtlsFailure } from './alerts.ts';
import { Reader, uint, uintVector, vector } from './bytes.ts';

/** Numbers of the extensions that are understood. Others are ignored (RFC 5246 section 7.4.1.4). */
const Extension = {
  MaxFragmentLength: 1, // RFC 6066 section 4
  SupportedGroups: 10, // RFC 8422
  EcPointFormats: 11, // RFC 8422
  SignatureAlgorithms: 13, // RFC 5246 section 7.4.1.4.1
  ClientCertificateType: 19, // RFC 7250
  ServerCertificateType: 20, // RFC 7250
  EncryptThenMac: 22, // RFC 7366
  ExtendedMasterSecret: 23, // RFC 7627
  RecordSizeLimit: 28, // RFC 8449
  ConnectionId: 54, // RFC 9146
  RenegotiationInfo: 0xff01, // RFC 5746
} as const;

/** Kinds of certificates (RFC 7250 section 3). */
export const CertificateType = { X509: 0, RawPublicKey: 2 } as const;

/** The signature algorithm that RFC 7925 section 4.4 requires: ECDSA with SHA-256. */
export const ecdsaSha256 = 0x0403;

/** The group that RFC 7925 section 4.4 requires. Points are not compressed. */
export const secp256r1 = 23;
const uncompressed = 0;

/** Shortest limit that a peer may ask for (RFC 8449 section 4). */
const leastLimit = 64;
/** Longest connection ID of a peer that is used. It goes into each record. */
export const mostCid = 32;

/** What a hello says in its extensions. Each is absent when it is not there. */
export interface HelloExtensions {
  readonly groups?: readonly number[];
  readonly hasPointFormats?: boolean;
  readonly signatureAlgorithms?: readonly number[];
  /** Kinds of certificates of the client, the preferred one first. A ServerHello has one. */
  readonly clientTypes?: readonly number[];
  /** Kinds of certificates of the server, as `clientTypes`. */
  readonly serverTypes?: readonly number[];
  readonly encryptThenMac?: boolean;
  readonly extendedMasterSecret?: boolean;
  /** Most bytes of content that the sender takes in one record. */
  readonly recordSizeLimit?: number;
  /** The same as a code from 1 to 4, of peers that do not know `recordSizeLimit`: 2 to the power of 8 and the code. */
  readonly maxFragment?: number;
  /** The connection ID that the sender wants in records to it; empty for none. Absent as well when it is too long. */
  readonly cid?: Buffer;
  readonly renegotiationInfo?: Buffer;
}

/**
 * Reads the extensions of a hello.
 * @throws {DtlsFailure} `DecodeError`, or `IllegalParameter` when one comes twice or has a value that is not allowed
 */
export function readExtensions(reader: Reader): HelloExtensions {
  if (reader.remaining === 0) return {};
  const all = new Reader(reader.vector(2));
  const seen = new Set<number>();
  let found: HelloExtensions = {};
  while (all.remaining > 0) {
    const type = all.uint(2);
    if (seen.has(type)) throw new DtlsFailure(Alert.IllegalParameter, 'an extension comes twice');
    seen.add(type);
    const body = new Reader(all.vector(2));
    found = { ...found, ...readExtension(type, body) };
  }
  return found;
}

function readExtension(type: number, body: Reader): HelloExtensions {
  switch (type) {
    case Extension.MaxFragmentLength: {
      const maxFragment = body.uint(1);
      if (maxFragment < 1 || maxFragment > 4)
        throw new DtlsFailure(Alert.IllegalParameter, 'there is no such fragment length');
      return { maxFragment };
    }
    case Extension.SupportedGroups:
      return { groups: new Reader(body.vector(2)).uints(2) };
    case Extension.EcPointFormats:
      return { hasPointFormats: body.vector(1).includes(uncompressed) };
    case Extension.SignatureAlgorithms:
      return { signatureAlgorithms: new Reader(body.vector(2)).uints(2) };
    case Extension.ClientCertificateType:
      return { clientTypes: readTypes(body) };
    case Extension.ServerCertificateType:
      return { serverTypes: readTypes(body) };
    case Extension.EncryptThenMac:
      body.end();
      return { encryptThenMac: true };
    case Extension.ExtendedMasterSecret:
      body.end();
      return { extendedMasterSecret: true };
    case Extension.RecordSizeLimit: {
      const recordSizeLimit = body.uint(2);
      if (recordSizeLimit < leastLimit)
        throw new DtlsFailure(Alert.IllegalParameter, 'the record size limit is too low');
      return { recordSizeLimit };
    }
    case Extension.ConnectionId: {
      const cid = body.vector(1);
      body.end();
      return cid.length <= mostCid ? { cid: ownBytes(cid) } : {};
    }
    case Extension.RenegotiationInfo:
      return { renegotiationInfo: body.vector(1) };
    default:
      return {};
  }
}

/** A list in a ClientHello, a single one in a ServerHello (RFC 7250 section 3). */
const readTypes = (body: Reader): number[] =>
  body.remaining === 1 ? [body.uint(1)] : new Reader(body.vector(1)).uints(1);

/** The bytes of extensions, with the length of all in front. Empty when there is none. `isAnswer` is for a ServerHello. */
export function extensionBytes(said: HelloExtensions, isAnswer = false): Buffer {
  const parts: Buffer[] = [];
  const add = (type: number, body: Buffer) => parts.push(uint(type, 2), vector(2, body));
  const nothing = Buffer.alloc(0);
  const types = (all: readonly number[]) => (isAnswer ? Buffer.from(all) : uintVector(1, 1, all));
  if (said.maxFragment !== undefined) add(Extension.MaxFragmentLength, uint(said.maxFragment, 1));
  if (said.groups) add(Extension.SupportedGroups, uintVector(2, 2, said.groups));
  if (said.hasPointFormats) add(Extension.EcPointFormats, uintVector(1, 1, [uncompressed]));
  if (said.signatureAlgorithms)
    add(Extension.SignatureAlgorithms, uintVector(2, 2, said.signatureAlgorithms));
  if (said.clientTypes) add(Extension.ClientCertificateType, types(said.clientTypes));
  if (said.serverTypes) add(Extension.ServerCertificateType, types(said.serverTypes));
  if (said.encryptThenMac) add(Extension.EncryptThenMac, nothing);
  if (said.extendedMasterSecret) add(Extension.ExtendedMasterSecret, nothing);
  if (said.recordSizeLimit !== undefined) add(Extension.RecordSizeLimit, uint(said.recordSizeLimit, 2));
  if (said.cid) add(Extension.ConnectionId, vector(1, said.cid));
  if (said.renegotiationInfo) add(Extension.RenegotiationInfo, vector(1, said.renegotiationInfo));
  return parts.length === 0 ? nothing : vector(2, ...parts);
}
