import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { Protection } from '../../wire/coap/protection.ts';
import { OscoreContexts } from '../../wire/secure/oscore/contexts.ts';
import type { OscoreParameters } from '../../wire/secure/oscore/keys.ts';
import { Oscore } from '../../wire/secure/oscore/protection.ts';
import type { StoredSenders } from '../../wire/secure/oscore/stored-senders.ts';
import type { IssuedContexts } from '../store/issued-contexts.ts';

type Configured = ReadonlyMap<string, OscoreParameters>;

export interface DeviceContextsParts {
  readonly configured: Configured;
  readonly issued: IssuedContexts;
  readonly senders: StoredSenders;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/**
 * The OSCORE security contexts of a gateway with its devices: those of the configuration, and those that a bootstrap has issued. Where
 * both have one for an identity, that of the configuration counts.
 */
export class DeviceContexts {
  /** To be given to the CoAP endpoints. */
  readonly protection: Protection;
  readonly #issued: IssuedContexts;
  readonly #contexts: OscoreContexts;
  #configured: Configured = new Map();

  /** @throws {PosternError} `configuration` when two contexts of the configuration cannot be together */
  constructor(parts: DeviceContextsParts) {
    const { configured, issued, senders, ...machine } = parts;
    this.#issued = issued;
    this.#contexts = new OscoreContexts({ ...machine, store: senders });
    this.protection = new Oscore({ ...machine, contexts: this.#contexts });
    this.configure(configured);
    for (const [identity, parameters] of issued.load())
      if (!configured.has(identity)) this.#contexts.add(identity, parameters);
  }

  /** Number of contexts. */
  get size(): number {
    return this.#contexts.size;
  }

  /**
   * Puts the contexts of a configuration in force. Those that it does not have any more end at once.
   * @throws {PosternError} `configuration` when two contexts cannot be together
   */
  configure(configured: Configured): void {
    for (const identity of this.#configured.keys())
      if (!configured.has(identity)) this.#contexts.remove(identity);
    this.#configured = configured;
    for (const [identity, parameters] of configured) {
      const why = this.#contexts.add(identity, parameters);
      if (why !== undefined) throw new PosternError('configuration', `oscore.device: ${identity}: ${why}`);
    }
  }

  /**
   * Adds a context that a bootstrap gives to a device, or replaces the device's former one. The caller lets the device know only
   * when the database is settled.
   * @throws {PosternError} `conflict` when the context would share a nonce with another one, or the configuration has one for
   *   this identity; `full`, `storage`
   */
  issue(identity: string, parameters: OscoreParameters): void {
    if (this.#configured.has(identity))
      throw new PosternError('conflict', `the configuration has a security context for ${identity}`);
    const why = this.#contexts.conflict(identity, parameters);
    if (why !== undefined) throw new PosternError('conflict', why);
    this.#issued.put(identity, parameters);
    this.#contexts.add(identity, parameters);
  }

  /** Takes away a context that was issued, at once. @throws {PosternError} `storage` */
  revoke(identity: string): void {
    if (!this.#issued.has(identity)) return;
    this.#issued.remove(identity);
    if (!this.#configured.has(identity)) this.#contexts.remove(identity);
  }
}
