import 'reflect-metadata';
import { createHash, createPublicKey, type KeyObject, type X509Certificate } from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  X509Certificate as ParsedCertificate,
  Pkcs10CertificateRequest,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { certificatesOf, named, privateKeyOf, readPem } from '../base/pem.ts';
import { isTopicLevel } from '../wire/tunnel/topics.ts';

/** A certificate request that was checked. */
export interface CheckedRequest {
  /** Common name of its subject. */
  readonly name: string;
  /** SubjectPublicKeyInfo in DER. Who made the request holds the private key. */
  readonly publicKey: Buffer;
  /** The first 32 hexadecimal digits of the SHA-256 of `publicKey`. */
  readonly key: string;
}

/** A certificate that was issued. */
export interface Issued {
  /** Certificates in PEM, the one that was issued first, each issued by the next one. */
  readonly chain: string;
  /** Milliseconds since 1970. */
  readonly expires: number;
}

/** Milliseconds by which a certificate is valid before it was made: clocks differ. */
const slack = 86_400_000;
const day = 86_400_000;

/** Issues certificates of gateways. Requests and certificates are read and written by @peculiar/x509. */
export class CertificateAuthority {
  readonly #certificate: X509Certificate;
  readonly #key: KeyObject;
  /** The file of the authority: its certificate and those above it. */
  readonly #issuers: string;
  readonly #clock: Clock;
  readonly #entropy: Entropy;

  /**
   * @param files PEM files
   * @throws {PosternError} `configuration` when they cannot be read, do not belong together, or are of no authority
   */
  constructor(
    files: { readonly 'ca-cert': string; readonly 'ca-key': string },
    { clock, entropy }: { readonly clock: Clock; readonly entropy: Entropy },
  ) {
    this.#clock = clock;
    this.#entropy = entropy;
    const ofCert = { key: 'enrolment.ca-cert', file: files['ca-cert'] };
    const ofKey = { key: 'enrolment.ca-key', file: files['ca-key'] };
    this.#issuers = readPem(ofCert.file, ofCert.key);
    const key = readPem(ofKey.file, ofKey.key);
    const [certificate] = named(ofCert, () => certificatesOf(this.#issuers));
    this.#certificate = certificate!;
    this.#key = named(ofKey, () => privateKeyOf(key));
    if (!this.#certificate.checkPrivateKey(this.#key))
      throw new PosternError(
        'configuration',
        `${ofKey.key}: ${ofKey.file} is not the key of the certificate ${ofCert.file}`,
      );
    named(ofKey, () => algorithmOf(this.#key));
    if (!this.#certificate.ca)
      throw new PosternError(
        'configuration',
        `${ofCert.key}: ${ofCert.file}: it is not the certificate of an authority`,
      );
  }

  /**
   * Checks a certificate request (PKCS#10): its signature, its key, and its name.
   * @param der the request in DER
   * @throws {PosternError} `malformed`
   */
  async check(der: Uint8Array): Promise<CheckedRequest> {
    const { names, publicKey } = await readRequest(der);
    const [name] = names;
    if (name === undefined || names.length !== 1 || !isTopicLevel(name))
      throw new PosternError('malformed', 'the request has no common name that a gateway may have');
    return { name, publicKey, key: createHash('sha256').update(publicKey).digest('hex').slice(0, 32) };
  }

  /**
   * Issues a certificate for TLS clients. It ends with that of the authority at the latest.
   * @param publicKey SubjectPublicKeyInfo in DER
   * @param days for which it is valid
   * @param unit organizational unit in its subject
   * @param from when it begins to be valid: just now, if absent
   */
  async issue(
    name: string,
    publicKey: Uint8Array,
    days: number,
    unit?: string,
    from?: Date,
  ): Promise<Issued> {
    const algorithm = algorithmOf(this.#key);
    const signingKey = this.#key.toCryptoKey(algorithm, false, ['sign']);
    const now = this.#clock.wall();
    const expires = Math.min(now + days * day, this.#certificate.validToDate.getTime());
    const serial = Buffer.from(this.#entropy.bytes(16));
    // A positive number, of which no byte is superfluous.
    serial[0] = (serial[0]! & 0x3f) | 0x40;
    const subjectKey = createPublicKey({ key: Buffer.from(publicKey), format: 'der', type: 'spki' });
    const ecdsa = { name: 'ECDSA', namedCurve: 'P-256' };
    const wanted = subjectKey.toCryptoKey(ecdsa, true, ['verify']);
    const authority = new ParsedCertificate(this.#certificate.raw);
    const authorityKey = authority.getExtension(SubjectKeyIdentifierExtension)?.keyId;
    const certificate = await X509CertificateGenerator.create({
      serialNumber: serial.toString('hex'),
      subject: [...(unit === undefined ? [] : [{ OU: [unit] }]), { CN: [name] }],
      issuer: authority.subjectName,
      notBefore: from ?? new Date(now - slack),
      notAfter: new Date(expires),
      publicKey: wanted,
      signingKey,
      signingAlgorithm: algorithm,
      extensions: [
        new BasicConstraintsExtension(false, undefined, true),
        new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
        new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth]),
        await SubjectKeyIdentifierExtension.create(wanted),
        ...(authorityKey === undefined ? [] : [new AuthorityKeyIdentifierExtension(authorityKey)]),
      ],
    });
    return { chain: `${certificate.toString('pem')}\n${this.#issuers.trim()}\n`, expires };
  }
}

/**
 * Reads a request, and checks its key and then its signature.
 * @throws {PosternError} `malformed`
 */
async function readRequest(der: Uint8Array) {
  const request = readable(() => new Pkcs10CertificateRequest(Buffer.from(der)));
  const publicKey = readable(() => Buffer.from(request.publicKey.rawData));
  const { asymmetricKeyDetails } = readable(() =>
    createPublicKey({ key: publicKey, format: 'der', type: 'spki' }),
  );
  // Before the signature: to verify one by a large key of RSA takes long.
  if (asymmetricKeyDetails?.namedCurve !== 'prime256v1')
    throw new PosternError('malformed', 'the key of the request is not on P-256');
  const isRight = await request.verify().catch(() => false);
  if (!isRight) throw new PosternError('malformed', 'the signature of the request is wrong');
  return { names: readable(() => request.subjectName.getField('CN')), publicKey };
}

function readable<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new PosternError('malformed', 'there is no certificate request that can be read', { cause });
  }
}

/** The algorithm by which a key of an authority signs, for WebCrypto. */
function algorithmOf({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject) {
  if (asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  const namedCurve = curves[asymmetricKeyDetails?.namedCurve ?? ''];
  if (namedCurve !== undefined) return { name: 'ECDSA', namedCurve, hash: 'SHA-256' };
  throw new PosternError('configuration', 'it is neither a key of RSA nor of P-256 or P-384');
}

const curves: Readonly<Record<string, string>> = { prime256v1: 'P-256', secp384r1: 'P-384' };
