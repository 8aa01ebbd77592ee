import { demandTls, readPem } from '../base/pem.ts';
import type { HeadendConfig } from './config.ts';

/** Certificate and private key, PEM. */
export interface ApiIdentity {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
}

/**
 * Reads the certificate of the API and its key. Undefined when the configuration names none.
 * @throws {PosternError} `configuration` when a file cannot be read, or does not hold what it should
 */
export function apiIdentity(api: HeadendConfig['api']): ApiIdentity | undefined {
  const { 'tls-cert': certFile, 'tls-key': keyFile } = api;
  if (certFile === undefined || keyFile === undefined) return undefined;
  const identity = { cert: readPem(certFile, 'api.tls-cert'), key: readPem(keyFile, 'api.tls-key') };
  demandTls({
    cert: { key: 'api.tls-cert', file: certFile, pem: identity.cert },
    key: { key: 'api.tls-key', file: keyFile, pem: identity.key },
  });
  return identity;
}
