import type { Certificates } from '../../../../src/wire/secure/dtls/certificates.ts';
import { authority, certificatesOf, type Issued, issue } from './authority.ts';
import { Pair, type PairOptions } from './pair.ts';

export const root = authority('Test root');
export const serverOwn = issue(
  { commonNames: ['gateway'], dnsNames: ['gateway.example'], purposes: [1] },
  root,
);
/** An authority of devices below the root. */
export const middle = authority('Test authority', {}, root);
export const deviceName = 'urn:dev:ops:32473-device';
export const device = issue(
  { uris: [deviceName], commonNames: ['a device'], purposes: [2], keyUsage: 0x80 },
  root,
);
export const serverName = 'gateway.example';
export const served = certificatesOf(serverOwn, { authorities: [root], rawKeys: { 'raw device': device } });

export const credentials = (certificates: Certificates, name = serverName) => ({
  identity: 'own',
  key: undefined as never,
  certificates: { ...certificates, serverName: name },
});
export const pairOf = (
  options: PairOptions = {},
  certificates: () => Certificates | undefined = () => served,
) =>
  new Pair({ ...options, server: { server: { keyOf: () => undefined, certificates }, ...options.server } });
export const withDevice = (own: Issued = device, chain: readonly Issued[] = [own]) =>
  certificatesOf(own, { chain, authorities: [root] });
export const withRawKeys = certificatesOf(device, { chain: [], rawKeys: { gateway: serverOwn } });
