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
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
    '-subj',
    name('CA'),
    ...forLong,
  );
  openssl(
    'req',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'update.key',
    '-out',
    'update.csr',
    '-subj',
    name('updates'),
  );
  writeFileSync(
    join(folder, 'update.ext'),
    'keyUsage=digitalSignature\nextendedKeyUsage=emailProtection,codeSigning\n',
  );
  openssl(
    'x509',
    '-req',
    '-in',
    'update.csr',
    '-CA',
    'ca.crt',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-out',
    'update.crt',
    '-extfile',
    'update.ext',
    ...forLong,
  );
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    'boot.key',
    '-out',
    'boot.crt',
    '-subj',
    name('boot'),
    ...forLong,
  );
}
