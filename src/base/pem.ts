import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { asPosternError, PosternError } from './errors.ts';
import { readNamedFile } from './named-file.ts';

/**
 * Reads a PEM file: certificates or a key. A file that is being replaced may be empty for a moment. TLS would take that for
 * "none is configured": it would serve without a certificate, or trust the authorities of the machine.
 * @param what key of the configuration, for the error message
 * @param read reads the file, in place of `readNamedFile`
 * @throws {PosternError} `configuration` when the file cannot be read, or holds nothing in PEM
 */
export function readPem(file: string, what: string, read = readNamedFile): string {
  let text: string;
  try {
    text = read(file).toString();
  } catch (cause) {
    throw new PosternError('configuration', `${what}: ${file} ${asPosternError(cause).message}`, { cause });
  }
  if (!text.includes('-----BEGIN '))
    throw new PosternError('configuration', `${what}: ${file} holds nothing in PEM`);
  return text;
}

/** A PEM file that a configuration names. */
export interface PemFile {
  /** Key of the configuration, such as `mqtt.ca`. */
  readonly key: string;
  readonly file: string;
  /** What is in the file. */
  readonly pem: string;
}

/**
 * Certificates of a PEM text, at least one.
 * @throws {PosternError} `configuration`, without the name of a file
 */
export function certificatesOf(pem: string): readonly X509Certificate[] {
  const found = pem.match(/-----BEGIN CERTIFICATE-----[^-]*(-----END CERTIFICATE-----|$)/g);
  if (!found) throw new PosternError('configuration', 'there is no certificate in it');
  return found.map((each) => parsed('certificate', () => new X509Certificate(each)));
}

/**
 * The private key of a PEM text.
 * @throws {PosternError} `configuration`, without the name of a file
 */
export function privateKeyOf(pem: string | Buffer): KeyObject {
  if (pem.includes('ENCRYPTED'))
    throw new PosternError(
      'configuration',
      'it has a passphrase, which nobody could type at a start; take it away (openssl pkey -in OLD -out NEW)',
    );
  return parsed('private key', () => createPrivateKey(pem));
}

/**
 * Reads a key or a certificate. What does not parse it is no such thing.
 * @param what what it should be
 * @throws {PosternError} `configuration`, without the name of a file
 */
export function parsed<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    throw new PosternError('configuration', `it holds no ${what} that can be read`, { cause });
  }
}

/**
 * Does something with what is in a file, and names the file and its key of the configuration when that fails.
 * @throws {PosternError} `configuration`
 */
export function named<T>({ key, file }: Pick<PemFile, 'key' | 'file'>, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new PosternError('configuration', `${key}: ${file}: ${asPosternError(cause).message}`, { cause });
  }
}

/**
 * Checks that TLS can use files: authorities, and a certificate with its key.
 * @throws {PosternError} `configuration`, which names the file at fault
 */
export function demandTls({
  ca,
  cert,
  key,
}: { readonly [K in 'ca' | 'cert' | 'key']?: PemFile | undefined }): void {
  // Nothing is loaded for a gateway without TLS.
  if (!ca && !cert && !key) return;
  if (ca) named(ca, () => certificatesOf(ca.pem));
  const certificates = cert && named(cert, () => certificatesOf(cert.pem));
  const privateKey = key && named(key, () => privateKeyOf(key.pem));
  if (cert && key && privateKey && certificates?.[0]?.checkPrivateKey(privateKey) === false)
    throw new PosternError(
      'configuration',
      `${key.key}: ${key.file} is not the key of the certificate ${cert.file}`,
    );
  try {
    createSecureContext({
      ...(ca && { ca: ca.pem }),
      ...(cert && { cert: cert.pem }),
      ...(key && { key: key.pem }),
    });
  } catch (cause) {
    // Such as a key that is too short for TLS.
    const all = [ca, cert, key].flatMap((one) => (one ? [`${one.key}: ${one.file}`] : []));
    const { reason = String(cause) } = cause as { readonly reason?: string };
    throw new PosternError('configuration', `${all.join(', ')}: TLS cannot use them: ${reason}`, { cause });
  }
}
