import type { Remote } from '../../wire/coap/message.ts';
import { keyOctets } from '../../wire/secure/oscore/config.ts';
import { factoryKey, isForOscore } from '../../wire/secure/transport-keys.ts';
import type { DeviceKeys } from '../store/device-keys.ts';
import type { Credential } from './access.ts';

/** What a device has from the factory. */
export interface FactorySecret {
  readonly deviceId: string;
  readonly secret: string;
  /** The secret is the key itself, as `keyOctets` reads it: that of an LwM2M client which derives nothing. */
  readonly isKey?: boolean;
}

/** Factory secrets by the identity of the key that each gives. */
export type FactorySecrets = ReadonlyMap<string, FactorySecret>;

export interface PreSharedKeysParts {
  /** Keys of the configuration, by identity. */
  readonly configured: () => ReadonlyMap<string, Uint8Array>;
  readonly factory: () => FactorySecrets;
  /** Keys that bootstraps have issued. */
  readonly issued: DeviceKeys;
}

/** All pre-shared keys of devices for DTLS. The identity of a key says whose it is, and of which kind. */
export class PreSharedKeys {
  readonly #parts: PreSharedKeysParts;

  constructor(parts: PreSharedKeysParts) {
    this.#parts = parts;
  }

  /** Undefined for an unknown identity, which nobody is told apart from a wrong key. */
  keyOf(identity: string): Uint8Array | undefined {
    const { configured, factory, issued } = this.#parts;
    const byConfiguration = configured().get(identity);
    const byFactory = factory().get(identity);
    // A key has one use.
    const byBootstrap = isForOscore(identity) ? undefined : issued.at(identity);
    // A key of the same length is made for an identity that is unknown, so that the work is the same.
    const derived = factoryKey(byFactory?.secret ?? '', byFactory?.deviceId ?? '');
    return (
      byConfiguration ??
      (byFactory && (byFactory.isKey ? keyOctets(byFactory.secret) : derived)) ??
      (byBootstrap && Buffer.from(byBootstrap.key))
    );
  }

  /**
   * Whose key it is. `credential` decides what its owner may use.
   * @param proof of a certificate or a raw public key. Its name is that of a device, whatever pre-shared keys there are
   */
  ownerOf(
    identity: string,
    proof: string | undefined,
  ): Pick<Remote, 'identity'> & { readonly credential: Credential } {
    const { configured, factory, issued } = this.#parts;
    if (proof !== undefined || configured().has(identity)) return { identity, credential: 'configuration' };
    const byFactory = factory().get(identity);
    if (byFactory) return { identity: byFactory.deviceId, credential: 'factory' };
    const byBootstrap = issued.at(identity);
    if (byBootstrap) return { identity: byBootstrap.deviceId, credential: 'gateway' };
    return { identity, credential: 'none' };
  }
}
