import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Arguments of `openssl req` for a new key on P-256. */
export const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'] as const;

/**
 * Makes a key and a self-signed certificate that is valid for a month.
 * @param more further arguments of `openssl req`
 */
export function selfSigned(
  name: string,
  { key, cert }: { readonly key: string; readonly cert: string },
  ...more: readonly string[]
): void {
  const out = ['-keyout', key, '-out', cert, '-days', '30', '-subj', `/CN=${name}`];
  execFileSync('openssl', ['req', '-x509', ...newKey, ...out, ...more], { stdio: 'pipe' });
}

/**
 * Makes an authority in a folder that is valid for a month: `ca.pem` and `ca.key`.
 * @param algorithm arguments of `-newkey`
 */
export function newAuthority(
  folder: string,
  algorithm: readonly string[] = ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
): { readonly 'ca-cert': string; readonly 'ca-key': string } {
  const [cert, key] = [join(folder, 'ca.pem'), join(folder, 'ca.key')];
  const extensions = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign,cRLSign'];
  const more = extensions.flatMap((one) => ['-addext', one]);
  const out = ['-keyout', key, '-out', cert, '-days', '30', '-subj', '/O=Postern tests/CN=Test authority'];
  execFileSync('openssl', ['req', '-x509', '-newkey', ...algorithm, '-nodes', ...out, ...more], {
    stdio: 'pipe',
  });
  return { 'ca-cert': cert, 'ca-key': key };
}

/**
 * Makes a key and a certificate that the authority of `newAuthority` in this folder issues: `{name}.pem` and `{name}.key`.
 * @param subject such as `/CN=gw-1`
 * @param extensions lines of an extension file of openssl
 */
export function issuedBy(
  folder: string,
  name: string,
  subject = `/CN=${name}`,
  extensions: readonly string[] = [],
): { readonly cert: string; readonly key: string } {
  const [cert, key, request, more] = ['pem', 'key', 'csr', 'ext'].map((end) =>
    join(folder, `${name}.${end}`),
  ) as [string, string, string, string];
  writeFileSync(more, extensions.join('\n'));
  const quiet = { stdio: 'pipe' } as const;
  execFileSync(
    'openssl',
    ['req', '-new', ...newKey, '-keyout', key, '-out', request, '-subj', subject],
    quiet,
  );
  const by = ['-CA', join(folder, 'ca.pem'), '-CAkey', join(folder, 'ca.key'), '-CAcreateserial'];
  const out = ['-in', request, '-out', cert, '-days', '20', '-extfile', more];
  execFileSync('openssl', ['x509', '-req', ...by, ...out], quiet);
  return { cert, key };
}
