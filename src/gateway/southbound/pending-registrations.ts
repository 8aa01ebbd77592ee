import { PosternError } from '../../base/errors.ts';
import { type FairBounds, FairMap } from '../../base/fair-map.ts';
import type { Remote } from '../../wire/coap/message.ts';
import type { Registration } from '../store/registrations.ts';

/**
 * Bounds of registrations whose clients have not answered yet. An entry has about 1 KB; `bytes` counts the texts of its links.
 * A client answers within milliseconds, so the oldest entry is that of a client that does not answer. Names have no bound of
 * their own: whoever knows the name of a client could fill it.
 */
export const pendingBounds = {
  entries: 4096,
  perAddress: 128,
  perPrefix: 2048,
  bytes: 4 * 1024 * 1024,
} as const satisfies FairBounds;

/** A registration that proves nothing yet. */
export interface Pending {
  readonly registration: Registration;
  /** Location of the client's registration that was valid when this one came. */
  readonly before: string | undefined;
  /** Aborted when this registration is no longer wanted. */
  readonly end: AbortController;
}

/**
 * Registrations of clients that have not answered yet. They are kept apart from the valid ones, so that a registration in
 * somebody's name changes nothing for the client that has this name. Each has a Location-Path of its own.
 */
export class PendingRegistrations {
  readonly #entries: FairMap<Pending>;
  /** Locations of each name, the oldest first. */
  readonly #ofName = new Map<string, Set<string>>();

  constructor(bounds: FairBounds = pendingBounds) {
    this.#entries = new FairMap(bounds, (_, pending) => this.#forget(pending));
  }

  get size(): number {
    return this.#entries.size;
  }

  at(location: string): Pending | undefined {
    return this.#entries.get(location);
  }

  /** Whether the sender of a request has registered and not answered yet. */
  isAwaited({ identity, address, port }: Remote): boolean {
    if (identity !== undefined) return this.#ofName.has(identity);
    const isFrom = ([, { registration }]: [string, Pending]) =>
      registration.address === address && registration.port === port;
    return Iterator.from(this.#entries.entries()).some(isFrom);
  }

  /**
   * Adds a registration. It takes the place of one of the same name from the same address and port.
   * @param before location of the valid registration of this name
   * @param bytes length of the links that the client sent
   */
  add(registration: Registration, before: string | undefined, bytes: number): void {
    const { deviceId, location, address, port } = registration;
    for (const each of this.#ofName.get(deviceId) ?? []) {
      const other = this.#entries.get(each)?.registration;
      if (other?.address === address && other.port === port) this.end(each);
    }
    this.#entries.set(location, address, { registration, before, end: new AbortController() });
    const ofName = this.#ofName.get(deviceId);
    if (ofName) ofName.add(location);
    else this.#ofName.set(deviceId, new Set([location]));
    this.#entries.grow(location, bytes);
  }

  /** Changes a registration by an update of its client. */
  update(registration: Registration, bytes: number): void {
    const { location, address } = registration;
    const known = this.#entries.get(location);
    if (!known) return;
    this.#entries.set(location, address, { ...known, registration });
    this.#entries.grow(location, bytes);
  }

  /** Forgets a registration, and ends the question to its client. */
  end(location: string): void {
    const pending = this.#entries.get(location);
    if (!pending) return;
    this.#entries.delete(location);
    this.#forget(pending);
  }

  /** Forgets a registration that has become valid, and those of its name that came before it. */
  becomesValid({ deviceId, location }: Registration): void {
    if (!this.#entries.has(location)) return;
    for (const each of this.#ofName.get(deviceId) ?? []) {
      this.end(each);
      if (each === location) return;
    }
  }

  #forget({ registration: { deviceId, location }, end }: Pending): void {
    const ofName = this.#ofName.get(deviceId);
    ofName?.delete(location);
    if (ofName?.size === 0) this.#ofName.delete(deviceId);
    end.abort(new PosternError('unavailable', 'the client registered again, or does not answer'));
  }
}
