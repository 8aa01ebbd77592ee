import { BoundedMap } from '../../../base/bounded-map.ts';
import type { Suite } from './suites.ts';

/** What a handshake leaves, so that a later one can be short (RFC 5246 section 7.3). */
export interface Session {
  readonly id: Buffer;
  readonly identity: string;
  readonly suite: Suite;
  readonly master: Buffer;
}

/**
 * Sessions that clients may resume, one of each identity. Only sessions with an extended master secret are here (RFC 7627 section
 * 5.3).
 */
export class Sessions {
  /** By identity, the one used longest ago first. */
  readonly #sessions: BoundedMap<string, Session>;
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
  set(session: Session): void {
    if (this.#sessions.get(session.identity) !== session) this.forget(session.identity);
    this.#ids.set(keyOf(session.id), session.identity);
    this.#sessions.set(session.identity, session);
  }

  get(id: Buffer): Session | undefined {
    const identity = this.#ids.get(keyOf(id));
    return identity === undefined ? undefined : this.#sessions.get(identity);
  }

  /** Forgets the session of an identity, so that its next handshake takes its key. */
  forget(identity: string): void {
    const session = this.#sessions.get(identity);
    if (session && this.#sessions.delete(identity)) this.#drop(session);
  }

  #drop(session: Session): void {
    this.#ids.delete(keyOf(session.id));
    session.master.fill(0);
  }
}

const keyOf = (id: Buffer): string => id.toString('latin1');
