import { statSync } from 'node:fs';
import { PosternError } from '../base/errors.ts';
import { certificatesOf, named, privateKeyOf, readPem } from '../base/pem.ts';
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
  const keyAt = { key: 'coaps.key-file', file: keyFile };
  const key = readPem(keyFile, keyAt.key);
  demandPrivate(keyFile);
  let own = named(keyAt, () => {
    privateKeyOf(key);
    return ownKey(key, undefined);
  });
  const { 'certificate-file': certificateFile } = coaps;
  if (certificateFile !== undefined) {
    const chain = readPem(certificateFile, 'coaps.certificate-file');
    const chainAt = { key: 'coaps.certificate-file', file: certificateFile };
    const [certificate] = named(chainAt, () => certificatesOf(chain));
    if (!certificate!.checkPrivateKey(own.privateKey))
      throw new PosternError(
        'configuration',
        `coaps.key-file: ${keyFile} is not the key of the certificate ${certificateFile}`,
      );
    own = ownKey(key, chain);
  }
  const authorities = coaps['ca-files'].map((file) => {
    const pem = readPem(file, 'coaps.ca-files');
    named({ key: 'coaps.ca-files', file }, () => {
      certificatesOf(pem);
      peerTrust(own, [pem], []);
    });
    return pem;
  });
  const rawKeys = coaps['raw-key'].map((entry): [string, string | Buffer] => {
    const { identity, 'public-key-file': file } = entry;
    const at = 'coaps.raw-key.public-key';
    const given =
      file === undefined ? Buffer.from(entry['public-key'] ?? '', 'base64') : readPem(file, `${at}-file`);
    const place = file === undefined ? { key: at, file: identity } : { key: `${at}-file`, file };
    named(place, () => peerTrust(own, [], [[identity, given]]));
    return [identity, given];
  });
  try {
    return { own, trust: peerTrust(own, authorities, rawKeys) };
  } catch (cause) {
    throw new PosternError('configuration', `coaps.raw-key: ${(cause as Error).message}`, { cause });
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
