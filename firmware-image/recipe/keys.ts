import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { output, run } from './tools.ts';

/** Keys of a product line. In a folder: `ca.crt`, `update.crt`, `update.key` (X.509, for bundles) and `boot.key`, `boot.crt`. */
export interface SigningKeys {
  readonly folder: string;
  readonly areForDevelopment: boolean;
}

/**
 * The keys in a folder; without one, keys for development, which are made once and say so in their names. RAUC and mkimage
 * take PKCS#11 URIs in place of files: docs/firmware.md.
 * @throws {Error} when the folder lacks one
 */
export function signingKeys(folder: string | undefined): SigningKeys {
  if (folder !== undefined) {
    for (const file of ['ca.crt', 'update.crt', 'update.key', 'boot.key', 'boot.crt'])
      if (!existsSync(join(folder, file))) throw new Error(`--keys: ${folder} has no ${file}`);
    return { folder, areForDevelopment: false };
  }
  const made = join(output, 'development-keys');
  if (!existsSync(join(made, 'boot.crt'))) makeDevelopmentKeys(made);
  return { folder: made, areForDevelopment: true };
}

/** A CA, a certificate for updates below it, and a key for the FIT. */
export function makeDevelopmentKeys(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const openssl = (...args: string[]) => run('openssl', args, { cwd: folder });
  const name = (role: string) => `/O=Postern/CN=DEVELOPMENT ONLY ${role}`;
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
