import { execFileSync } from 'node:child_process';

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
