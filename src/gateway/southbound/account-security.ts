import type { Entropy } from '../../base/entropy.ts';
import type { Remote } from '../../wire/coap/message.ts';
import { identityBytes, issuedIdentity, issuedOscoreIdentity } from '../../wire/secure/transport-keys.ts';
import type { LocalEndpoint } from './coap-network.ts';

/** What protects a device after its bootstrap. */
export type AccountSecurity = 'dtls' | 'oscore';

/**
 * What the account that a bootstrap gives has a key for. Undefined without one: the bootstrap can be read on its way, or the device keeps
 * a security context that the configuration has for all its requests.
 * @param isForOscore the device is to use OSCORE, also when it is bootstrapped over DTLS
 */
export function securityOf(
  { scheme }: Pick<LocalEndpoint, 'scheme'>,
  { credential }: Remote,
  isForOscore: boolean,
): AccountSecurity | undefined {
  if (scheme === 'coaps') return isForOscore ? 'oscore' : 'dtls';
  return credential === 'factory' ? 'oscore' : undefined;
}

/** A new identity for a key. */
export const freshIdentity = (security: AccountSecurity, entropy: Entropy): string =>
  (security === 'oscore' ? issuedOscoreIdentity : issuedIdentity)(entropy.bytes(identityBytes));
