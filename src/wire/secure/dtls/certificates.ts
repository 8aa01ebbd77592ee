import {
  createHash,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign,
  verify,
  X509Certificate,
} from 'node:crypto';
import { Alert, DtlsFailure } from './alerts.ts';
import { CertificateType } from './extensions.ts';

/** What an end proves itself with, besides pre-shared keys. */
export interface OwnKey {
  readonly privateKey: KeyObject;
  /** DER of the raw public key (RFC 7250). */
  readonly publicKey: Buffer;
  /** DER of the own certificate and of those above it; empty when the end has a raw public key only. */
  readonly chain: readonly Buffer[];
}

/** Keys that are in no list: an end takes their holders by the key alone, and knows their names by other means. */
export interface UnlistedKeys {
  /** Whether such a key may be taken now. */
  readonly isTaking: boolean;
  /** Whether the holder of the key with this mark may open an association now. */
  admits(mark: string): boolean;
  /** Whether an association that the holder opened may go on. */
  holds(mark: string): boolean;
}

/** The identity of the holder of an unlisted key. */
export const unlistedIdentity = (mark: string): string => `key:${mark}`;

/** Whom an end believes, besides holders of pre-shared keys. */
export interface PeerTrust {
  /** Authorities, by the mark of their certificate (`markOf`). */
  readonly authorities: ReadonlyMap<string, X509Certificate>;
  /** Names of the holders of raw public keys, by the mark of the key. */
  readonly rawKeys: ReadonlyMap<string, string>;
  /** Further keys of clients. */
  readonly unlisted?: UnlistedKeys;
  /** Milliseconds since 1970 before which it cannot be now: the latest beginning of an own certificate or an authority's. */
  readonly notBefore: number;
}

/** What is needed for a handshake with certificates or raw public keys. */
export interface Certificates {
  readonly own: OwnKey;
  readonly trust: PeerTrust;
}

/** The mark of a certificate or public key: the SHA-256 of its DER. */
export const markOf = (der: Uint8Array): string => createHash('sha256').update(der).digest('base64url');

const curve = 'prime256v1';
const isUsable = ({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): boolean =>
  asymmetricKeyType === 'ec' && asymmetricKeyDetails?.namedCurve === curve;

const derOf = (key: KeyObject): Buffer => key.export({ type: 'spki', format: 'der' });

/** The certificates in a text. */
export const pemCertificates = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/**
 * Certificates of a PEM file, in their order.
 * @throws {Error} for one that cannot be read
 */
export const certificatesIn = (pem: string): X509Certificate[] =>
  (pem.match(pemCertificates) ?? []).map((each) => new X509Certificate(each));

/**
 * Makes what an end proves itself with.
 * @param key PEM of the private key
 * @param chain PEM of the own certificate and those above it
 * @throws {Error} when they cannot be read, the curve is not P-256, or they do not belong together
 */
export function ownKey(key: string, chain: string | undefined): OwnKey {
  const privateKey = createPrivateKey(key);
  if (!isUsable(privateKey))
    throw new Error(
      'the key is not an elliptic curve key on P-256; make one by openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256',
    );
  const certificates = chain === undefined ? [] : certificatesIn(chain);
  const [own] = certificates;
  if (chain !== undefined && !own) throw new Error('there is no certificate');
  if (own && !own.checkPrivateKey(privateKey)) throw new Error('the key is not that of the certificate');
  return {
    privateKey,
    publicKey: derOf(createPublicKey(privateKey)),
    chain: certificates.map(({ raw }) => raw),
  };
}

/**
 * Makes what an end believes.
 * @param authorities PEM of the certificates of authorities
 * @param rawKeys raw public keys, as PEM or as DER, with the names of their holders
 * @throws {Error} when one cannot be read, a curve is not P-256, or two names have the same key
 */
export function peerTrust(
  own: OwnKey,
  authorities: readonly string[],
  rawKeys: readonly (readonly [name: string, key: string | Buffer])[],
): PeerTrust {
  const all = authorities.flatMap(certificatesIn);
  const other = all.find(({ ca }) => !ca);
  if (other) throw new Error(`the certificate of ${nameOf(other)} is not one of an authority`);
  const marks = new Map<string, string>();
  for (const [name, key] of rawKeys) {
    const publicKey = publicKeyOf(name, key);
    if (!isUsable(publicKey)) throw new Error(`the key of ${name} is not an elliptic curve key on P-256`);
    const mark = markOf(derOf(publicKey));
    if (marks.has(mark)) throw new Error(`${name} has the same key as ${marks.get(mark)}`);
    marks.set(mark, name);
  }
  const [certificate] = own.chain;
  const dated = certificate ? [new X509Certificate(certificate), ...all] : all;
  return {
    authorities: new Map(all.map((each) => [markOf(each.raw), each])),
    rawKeys: marks,
    notBefore: Math.max(0, ...dated.map(({ validFromDate }) => validFromDate.getTime())),
  };
}

function publicKeyOf(name: string, key: string | Buffer): KeyObject {
  try {
    return typeof key === 'string'
      ? createPublicKey(key)
      : createPublicKey({ key, format: 'der', type: 'spki' });
  } catch (cause) {
    throw new Error(`the key of ${name} cannot be read`, { cause });
  }
}

/** The subject of a certificate, in one line. */
export const nameOf = ({ subject = '' }: X509Certificate): string => subject.replaceAll('\n', ', ');

/** Kinds of certificates that an end has, the preferred one first. */
export const ownTypes = ({ own }: Certificates): number[] =>
  own.chain.length > 0
    ? [CertificateType.X509, CertificateType.RawPublicKey]
    : [CertificateType.RawPublicKey];

/** Kinds of certificates that an end believes, the preferred one first. */
export function trustedTypes({ trust }: Certificates): number[] {
  const isTaking = trust.unlisted?.isTaking ?? false;
  return [
    ...(trust.authorities.size > 0 || isTaking ? [CertificateType.X509] : []),
    ...(trust.rawKeys.size > 0 || isTaking ? [CertificateType.RawPublicKey] : []),
  ];
}

/** What an end sends in its Certificate message. */
export const entriesOf = ({ own }: Certificates, type: number): readonly Buffer[] =>
  type === CertificateType.RawPublicKey ? [own.publicKey] : own.chain;

/** A signature of ECDSA with SHA-256. */
export const signed = ({ own }: Certificates, ...parts: readonly Buffer[]): Buffer =>
  sign('sha256', Buffer.concat(parts), own.privateKey);

/** Whether a signature of ECDSA with SHA-256 is right. */
export const isSigned = (key: KeyObject, signature: Buffer, ...parts: readonly Buffer[]): boolean =>
  verify('sha256', Buffer.concat(parts), key, signature);

/** What a peer said in its Certificate message. It is believed by nobody yet. */
export interface Presented {
  /** Empty for a raw public key. */
  readonly chain: readonly X509Certificate[];
  readonly publicKey: KeyObject;
}

/**
 * Reads what a peer presents.
 * @throws {DtlsFailure} `HandshakeFailure` for nothing, `BadCertificate`, `UnsupportedCertificate` for a key that is not on P-256
 */
export function presented(type: number, entries: readonly Buffer[]): Presented {
  const [first] = entries;
  if (!first) throw new DtlsFailure(Alert.HandshakeFailure, 'the peer has no certificate');
  const read = () => {
    if (type === CertificateType.RawPublicKey)
      return { chain: [], publicKey: createPublicKey({ key: first, format: 'der', type: 'spki' }) };
    const chain = entries.map((entry) => new X509Certificate(entry));
    return { chain, publicKey: chain[0]!.publicKey };
  };
  let peer: Presented;
  try {
    peer = read();
  } catch {
    throw new DtlsFailure(Alert.BadCertificate, 'the certificate cannot be read');
  }
  if (!isUsable(peer.publicKey))
    throw new DtlsFailure(
      Alert.UnsupportedCertificate,
      'the key of the certificate is not an elliptic curve key on P-256',
    );
  return peer;
}

/** The mark of a raw public key, whatever form it was presented in. */
export const keyMark = ({ publicKey }: Presented): string => markOf(derOf(publicKey));
