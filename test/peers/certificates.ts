import { execFileSync } from 'node:child_process';

/** A new key on P-256, for `openssl req`. */
export const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'] as const;

/** Makes a key and a certificate that it signs itself, for a month. */
export function selfSigned(
  name: string,
  { key, cert }: { readonly key: string; readonly cert: string },
  ...more: readonly string[]
): void {
  const out = ['-keyout', key, '-out', cert, '-days', '30', '-subj', `/CN=${name}`];
  execFileSync('openssl', ['req', '-x509', ...newKey, ...out, ...more], { stdio: 'pipe' });
}
