import type { Entropy } from '../base/entropy.ts';
import { secretBytes } from '../wire/secure/transport-keys.ts';

const nonceBytes = 16;

/** Random secrets and nonces of an account in both directions: 128 bits each, the secrets as text in base64url. */
export function freshSecrets(entropy: Entropy) {
  const secret = () => Buffer.from(entropy.bytes(secretBytes)).toString('base64url');
  return {
    clientSecret: secret(),
    clientNonce: entropy.bytes(nonceBytes),
    serverSecret: secret(),
    serverNonce: entropy.bytes(nonceBytes),
  };
}
