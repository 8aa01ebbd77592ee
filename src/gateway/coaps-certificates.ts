import { statSync } from 'node:fs';
import { PosternError } from '../base/errors.ts';
import { readPem } from '../base/pem.ts';
import { type Certificates, ownKey, peerTrust } from '../wire/secure/dtls/certificates.ts';
import type { GatewayConfig } from './config.ts';

/**
 * Reads what a gateway proves itself with to devices with certificates or raw public keys, and whom it believes. Undefined without
 * `coaps.key-file`.
 * @throws {PosternError} `configuration` when a file cannot be read, others may read the key, or something does not fit
 */
export function coapsCertificates({ coaps }: Pick<GatewayConfig, 'coaps'>): Certificates | undefined {
  const keyFile = coaps?.['key-file'];
  if (!coaps || keyFile === undefined) return undefined;
  const key = readPem(keyFile, 'coaps.key-file');
  demandPrivate(keyFile);
  const certificateFile = coaps['certificate-file'];
  const chain = certificateFile && readPem(certificateFile, 'coaps.certificate-file');
  const authorities = coaps['ca-files'].map((file) => readPem(file, 'coaps.ca-files'));
  const rawKeys = coaps['raw-key'].map((entry): [string, string | Buffer] => {
    const file = entry['public-key-file'];
    const given = Buffer.from(entry['public-key'] ?? '', 'base64');
    return [entry.identity, file === undefined ? given : readPem(file, 'coaps.raw-key.public-key-file')];
  });
  try {
    const own = ownKey(key, chain);
    return { own, trust: peerTrust(own, authorities, rawKeys) };
  } catch (cause) {
    throw new PosternError('configuration', `coaps: ${(cause as Error).message}`, { cause });
  }
}

/** Who can read the key can be the gateway. */
function demandPrivate(file: string): void {
  const mode = statSync(file).mode & 0o777;
  if ((mode & 0o077) !== 0)
    throw new PosternError(
      'configuration',
      `coaps.key-file: other users have rights to ${file} (mode ${mode.toString(8)}); run chmod 600 on it`,
    );
}
