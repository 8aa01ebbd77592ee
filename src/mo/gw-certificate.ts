import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { MoId } from './identifiers.ts';

/** GwCertificate: the certificate by which an enrolled gateway is known at its broker. Postern's own (docs/gwmo.md). */
export const gwCertificate: ManagementObject = {
  id: MoId.GwCertificate,
  root: interior(['Get'], 'Certificate of the gateway at its broker', {
    Request: leaf('chr', ['Get'], 'Certificate request (PKCS#10) of the key of the board, PEM'),
    Chain: leaf(
      'chr',
      ['Get', 'Replace'],
      'Certificate in use and those of its issuers, PEM. A new one is tried at the broker, and is in use when the broker takes it',
    ),
    Expires: leaf('chr', ['Get'], 'When the certificate in use ends, ISO 8601'),
    Problem: leaf('chr', ['Get'], 'What is wrong with the certificate or its renewal; empty when nothing is'),
  }),
};
