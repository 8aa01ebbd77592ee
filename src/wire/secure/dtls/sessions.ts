import { BoundedMap } from '../../../base/bounded-map.ts';
import { SecretPool } from './secret-pool.ts';
import type { Suite } from './suites.ts';

/** What a handshake leaves, so that a later one can be short (RFC 5246 section 7.3). */
export interface Session {
  readonly id: Buffer;
  readonly identity: string;
  /** By what the client proved its identity, as `Agreement.proof`. */
  readonly proof?: string | undefined;
  readonly suite: Suite;
  readonly master: Buffer;
}

/** Bytes of a master secret. */
const masterBytes = 48;

interface Held {
  readonly id: string;
  readonly suite: Suite;
  readonly proof: string | undefined;
  /** Where the master secret is. */
  readonly slot: number;
}

/**
 * Sessions that clients may resume, one of each identity. Only sessions with an extended master secret are here (RFC 7627 section
 * 5.3).
 */
export class Sessions {
  readonly #masters = new SecretPool(masterBytes);
  /** By identity, the one used longest ago first. */
  readonly #sessions: BoundedMap<string, Held>;
  /** Identities by session ID. */
  readonly #ids = new Map<string, string>();

  /** @param limit most sessions; the one used longest ago gives way */
  constructor(limit: number) {
    this.#sessions = new BoundedMap(limit, (_, session) => this.#drop(session));
  }

  get size(): number {
    return this.#sessions.size;
  }

  /** Remembers a session instead of an earlier one of its identity. */
  set({ id: bytes, identity, proof, suite, master }: Session): void {
    this.forget(identity);
    const id = keyOf(bytes);
    this.#ids.set(id, identity);
    this.#sessions.set(identity, { id, suite, proof, slot: this.#masters.keep(master) });
  }

  has(id: Buffer): boolean {
    return this.#ids.has(keyOf(id));
  }

  /** With a copy of its master secret. */
  get(id: Buffer): Session | undefined {
    const identity = this.#ids.get(keyOf(id));
    const held = identity === undefined ? undefined : this.#sessions.get(identity);
    if (!held || identity === undefined) return undefined;
    const master = Buffer.from(this.#masters.view(held.slot, 0, masterBytes));
    return { id, identity, proof: held.proof, suite: held.suite, master };
  }

  /** Forgets the session of an identity, so that its next handshake takes its key. */
  forget(identity: string): void {
    const session = this.#sessions.get(identity);
    if (session && this.#sessions.delete(identity)) this.#drop(session);
  }

  #drop({ id, slot }: Held): void {
    this.#ids.delete(id);
    this.#masters.release(slot);
  }
}

const keyOf = (id: Buffer): string => id.toString('latin1');
