import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Certificates, ownKey, peerTrust } from '../../src/wire/secure/dtls/certificates.ts';
import type { ServedCertificates } from '../../src/wire/secure/dtls/client-handshake.ts';
import { authority, certificatesOf, issue } from '../wire/secure/dtls/authority.ts';

const files = { certificate: 'server.pem', key: 'server.key', authority: 'root.pem' } as const;

/** Files of the server: its certificate, its key, and the authority of the client. */
export const benchFiles = (folder: string) => ({
  certificate: join(folder, files.certificate),
  key: join(folder, files.key),
  authority: join(folder, files.authority),
});

/** Makes certificates of a server and a client below one authority. Returns what the client has. */
export function makeBenchCertificates(folder: string): ServedCertificates {
  const root = authority('Bench root');
  const server = issue({ commonNames: ['localhost'], dnsNames: ['localhost'] }, root);
  const paths = benchFiles(folder);
  writeFileSync(paths.certificate, server.pem);
  writeFileSync(paths.key, server.keyPem, { mode: 0o600 });
  writeFileSync(paths.authority, root.pem);
  const client = certificatesOf(issue({ commonNames: ['bench'] }, root), { authorities: [root] });
  return { ...client, serverName: 'localhost' };
}

/** What the server has. */
export function benchServed(folder: string): Certificates {
  const paths = benchFiles(folder);
  const own = ownKey(readFileSync(paths.key, 'utf8'), readFileSync(paths.certificate, 'utf8'));
  return { own, trust: peerTrust(own, [readFileSync(paths.authority, 'utf8')], []) };
}
