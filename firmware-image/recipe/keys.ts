import { X509Certificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { output, run } from './tools.ts';

/**
 * The signing keys of a product line. The folder has `ca.crt`, `update.crt` and `update.key` (X.509, for bundles), and
 * `boot.key` and `boot.crt` (for the FIT). It may have:
 * - `old-ca.crt` and `old-ca.until`: the authority that `ca.crt` replaces, and the day on which that one ends
 *   (`2027-06-30`). `update.crt` may be by either of them.
 * - `second-ca.crt`, `second.crt` and `second.key`: bundles need a second signature, by a signer of this other authority.
 * - `update.crl`: a revocation list of `ca.crt`.
 * - `other-boot.crt`: the boot loader trusts this key as well as `boot.crt`.
 */
export interface SigningKeys {
  readonly folder: string;
  readonly areForDevelopment: boolean;
}

/** Part of the subjects of keys for development. */
const developmentOnly = 'DEVELOPMENT ONLY';

/**
 * The keys in a folder. Without a folder, keys for development: they are made once and kept, and their subjects say
 * "DEVELOPMENT ONLY". RAUC and mkimage also accept PKCS#11 URIs instead of files, see docs/firmware.md.
 * @throws {Error} when a file is missing in the folder, or has a key for development
 */
export function signingKeys(folder: string | undefined): SigningKeys {
  if (folder !== undefined) {
    for (const file of ['ca.crt', 'update.crt', 'update.key', 'boot.key', 'boot.crt'])
      if (!existsSync(join(folder, file))) throw new Error(`--keys: ${folder} has no ${file}`);
    for (const file of ['ca.crt', 'update.crt', 'boot.crt'])
      if (run('openssl', ['x509', '-in', join(folder, file), '-noout', '-subject']).includes(developmentOnly))
        throw new Error(`--keys: ${folder}/${file} is for development only`);
    return { folder, areForDevelopment: false };
  }
  const made = join(output, 'development-keys');
  if (!existsSync(join(made, 'boot.crt'))) makeDevelopmentKeys(made);
  return { folder: made, areForDevelopment: true };
}

/** Whom boards and gateways trust by the certificates in a folder of keys. All texts are PEM. */
export interface TrustFiles {
  readonly authority: string;
  /** `until`: seconds since 1970. */
  readonly old: { readonly certificate: string; readonly until: number } | undefined;
  readonly second: string | undefined;
  readonly list: string | undefined;
}

/**
 * Reads the certificates in a folder of keys.
 * @throws {Error} for files that do not fit together
 */
export function trustFiles(folder: string): TrustFiles {
  const text = (name: string) =>
    existsSync(join(folder, name)) ? readFileSync(join(folder, name), 'utf8') : undefined;
  const authorityIn = (name: string): string | undefined => {
    const pem = text(name);
    if (pem === undefined) return undefined;
    if (pem.split('BEGIN CERTIFICATE').length !== 2)
      throw new Error(`--keys: ${folder}/${name} must have one certificate`);
    const certificate = new X509Certificate(pem);
    if (!certificate.ca) throw new Error(`--keys: ${folder}/${name} is no certificate of an authority`);
    return certificate.toString();
  };
  const [authority, oldOne, second] = ['ca.crt', 'old-ca.crt', 'second-ca.crt'].map(authorityIn);
  const until = Date.parse(text('old-ca.until')?.trim() ?? '') / 1000;
  if (oldOne !== undefined && !(until > 0))
    throw new Error(
      `--keys: ${folder}/old-ca.until must have the day on which old-ca.crt ends, such as 2027-06-30`,
    );
  if (second !== undefined && [authority, oldOne].includes(second))
    throw new Error(
      `--keys: second-ca.crt is the same authority as ca.crt or old-ca.crt, so one signer could sign twice`,
    );
  if (second !== undefined)
    for (const file of ['second.crt', 'second.key'])
      if (text(file) === undefined) throw new Error(`--keys: ${folder} has second-ca.crt, but no ${file}`);
  return {
    authority: authority!,
    old: oldOne === undefined ? undefined : { certificate: oldOne, until },
    second,
    list: text('update.crl'),
  };
}

/** Makes a CA, a certificate for updates that the CA signs, and a key for the FIT. They are valid for 20 years. */
export function makeDevelopmentKeys(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const openssl = (...args: string[]) => run('openssl', args, { cwd: folder });
  const name = (role: string) => `/O=Postern/CN=${developmentOnly} ${role}`;
  const forLong = ['-days', '7300'];
  const newKey = (file: string) => ['-newkey', 'rsa:2048', '-nodes', '-keyout', `${file}.key`];
  const selfSigned = (file: string, role: string) =>
    openssl('req', '-x509', ...newKey(file), '-out', `${file}.crt`, '-subj', name(role), ...forLong);
  selfSigned('ca', 'CA');
  openssl('req', ...newKey('update'), '-out', 'update.csr', '-subj', name('updates'));
  writeFileSync(
    join(folder, 'update.ext'),
    'keyUsage=digitalSignature\nextendedKeyUsage=emailProtection,codeSigning\n',
  );
  const byCa = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-extfile', 'update.ext'];
  openssl('x509', '-req', '-in', 'update.csr', ...byCa, '-out', 'update.crt', ...forLong);
  selfSigned('boot', 'boot');
}
