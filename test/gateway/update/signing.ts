import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeBundle } from '../../../src/gateway/update/bundle.ts';

/** An authority, and who may sign below it. */
export interface Authority {
  /** PEM. */
  readonly certificate: string;
  sign(program: Uint8Array | string, facts: { compatible?: string; version: string; floor?: string }): Buffer;
}

export function makeAuthority(name: string): Authority {
  const folder = mkdtempSync(join(tmpdir(), 'postern-ca-'));
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...ec,
    '-keyout',
    'ca.key',
    '-out',
    'ca.crt',
    '-subj',
    `/CN=${name}`,
    '-days',
    '3650',
  );
  openssl('req', ...ec, '-keyout', 'signer.key', '-out', 'signer.csr', '-subj', `/CN=${name} updates`);
  writeFileSync(join(folder, 'ext'), 'basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n');
  openssl(
    'x509',
    '-req',
    '-in',
    'signer.csr',
    '-CA',
    'ca.crt',
    '-CAkey',
    'ca.key',
    '-CAcreateserial',
    '-out',
    'signer.crt',
    '-days',
    '3650',
    '-extfile',
    'ext',
  );
  const read = (file: string) => readFileSync(join(folder, file), 'utf8');
  const [certificate, signer, key] = [read('ca.crt'), read('signer.crt'), read('signer.key')];
  rmSync(folder, { recursive: true });
  return {
    certificate,
    sign: (program, { compatible = 'postern-node', ...facts }) =>
      writeBundle(Buffer.from(program), { compatible, ...facts }, { certificates: [signer], key }),
  };
}
