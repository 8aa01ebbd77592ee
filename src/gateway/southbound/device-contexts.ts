import { isDeepStrictEqual } from 'node:util';
import { guarded } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { Protection } from '../../wire/coap/protection.ts';
import { type ContextOwner, type ContextPlace, OscoreContexts } from '../../wire/secure/oscore/contexts.ts';
import type { OscoreParameters } from '../../wire/secure/oscore/keys.ts';
import { Oscore } from '../../wire/secure/oscore/protection.ts';
import type { StoredSenders } from '../../wire/secure/oscore/stored-senders.ts';
import { isForOscore, issuedContext } from '../../wire/secure/transport-keys.ts';
import type { DeviceKeys } from '../store/device-keys.ts';

/** A security context of the configuration, and whose it is. */
export interface ConfiguredContext {
  readonly parameters: OscoreParameters;
  readonly owner: ContextOwner;
}

type Configured = ReadonlyMap<string, ConfiguredContext>;

export interface DeviceContextsParts {
  /** By name. */
  readonly configured: Configured;
  /** Keys that bootstraps have issued. Those for OSCORE give contexts. */
  readonly keys: DeviceKeys;
  readonly senders: StoredSenders;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/**
 * The OSCORE security contexts of a gateway with its devices: those of the configuration and of factory secrets, and those of the keys
 * that bootstraps have issued. A context has the name that its key has, and lives as long as the key.
 */
export class DeviceContexts {
  /** To be given to the CoAP endpoints. */
  readonly protection: Protection;
  readonly #keys: DeviceKeys;
  readonly #contexts: OscoreContexts;
  #configured: Configured = new Map();

  /** @throws {PosternError} `configuration` when two contexts of the configuration cannot be together */
  constructor(parts: DeviceContextsParts) {
    const { configured, keys, senders, ...machine } = parts;
    this.#keys = keys;
    this.#contexts = new OscoreContexts({ ...machine, store: senders });
    const used = guarded(machine.events, 'state', (name: string) => keys.used(name));
    this.protection = new Oscore({ ...machine, contexts: this.#contexts, used });
    this.configure(configured);
    for (const deviceId of keys.devices())
      for (const { identity } of keys.of(deviceId)) this.#follow(identity);
    keys.onIssued((identity) => {
      const why = this.#follow(identity);
      if (why !== undefined) throw new PosternError('conflict', why);
    });
  }

  /** Number of contexts. */
  get size(): number {
    return this.#contexts.size;
  }

  /** Whether there is a context with this device: one of the configuration, or one that a bootstrap has issued. */
  has(deviceId: string): boolean {
    return (
      this.#contexts.get(deviceId) !== undefined ||
      this.#keys.of(deviceId).some(({ identity }) => isForOscore(identity))
    );
  }

  /** Whether this device was heard last at this address and port by its context. */
  isAt(deviceId: string, place: ContextPlace): boolean {
    return this.#contexts.at(place)?.owner.identity === deviceId;
  }

  /**
   * Checks that contexts of a configuration can be beside those that bootstraps have issued. Nothing changes.
   * @throws {PosternError} `configuration`
   */
  demandTogether(configured: Configured): void {
    const isLeaving = (name: string) => this.#configured.has(name);
    for (const [name, { parameters }] of configured)
      demand(name, this.#contexts.conflict(name, parameters, isLeaving));
  }

  /**
   * Puts the contexts of a configuration in force. Those that it does not have any more end at once.
   * @throws {PosternError} `configuration` when two contexts cannot be together
   */
  configure(configured: Configured): void {
    // Before any is added: one may have got the IDs of another one.
    for (const [name, former] of this.#configured)
      if (!isDeepStrictEqual(configured.get(name), former)) this.#contexts.remove(name);
    this.#configured = configured;
    for (const [name, { parameters, owner }] of configured)
      demand(name, this.#contexts.add(name, parameters, owner));
  }

  /**
   * Ends the context of a key that has ended.
   * @param mayAnswer requests that came before still get their responses
   */
  end(identity: string, mayAnswer: boolean): void {
    if (isForOscore(identity)) this.#contexts.remove(identity, mayAnswer);
  }

  /** Adds the context of a key, or takes it away when the key was not stored. Returns why it cannot be added. */
  #follow(identity: string): string | undefined {
    if (!isForOscore(identity)) return undefined;
    const key = this.#keys.at(identity);
    if (!key) {
      this.#contexts.remove(identity);
      return undefined;
    }
    const owner = { identity: key.deviceId, credential: 'gateway' };
    return this.#contexts.add(identity, issuedContext(identity, key.key), owner);
  }
}

function demand(name: string, why: string | undefined): void {
  if (why !== undefined) throw new PosternError('configuration', `oscore.device: ${name}: ${why}`);
}
