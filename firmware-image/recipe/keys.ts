import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { output, run } from './tools.ts';

/**
 * The signing keys of a product line. The folder has `ca.crt`, `update.crt` and `update.key` (X.509, for bundles), and
 * `boot.key` and `boot.crt` (for the FIT).
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
