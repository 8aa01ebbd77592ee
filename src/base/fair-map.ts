import { prefixOf } from './address-prefix.ts';

/** Bounds of a `FairMap`. */
export interface FairBounds {
  readonly entries: number;
  /** Most entries of one address. */
  readonly perAddress: number;
  /** Most entries of all addresses of one prefix (`prefixOf`). */
  readonly perPrefix: number;
  /** Most bytes of all entries together, as far as `grow` is told of them; no bound if absent. */
  readonly bytes?: number;
}

interface Held<V> {
  readonly value: V;
  readonly address: string;
  readonly prefix: string;
  bytes: number;
}

/**
 * A map for entries that anyone may cause. At the bound of an address or of a prefix, the oldest entry of that address or
 * prefix gives way, so that one host displaces only its own entries. At the bound of all, the oldest entry gives way.
 */
export class FairMap<V> {
  readonly bounds: FairBounds;
  readonly #entries = new Map<string, Held<V>>();
  /** Keys of each address and of each prefix, the oldest first. */
  readonly #groups = new Map<string, Set<string>>();
  readonly #onEvict: ((key: string, value: V) => void) | undefined;
  #bytes = 0;

  constructor(bounds: FairBounds, onEvict?: (key: string, value: V) => void) {
    this.bounds = bounds;
    this.#onEvict = onEvict;
  }

  get size(): number {
    return this.#entries.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(key: string): V | undefined {
    return this.#entries.get(key)?.value;
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** Sets an entry. Setting it again makes it the newest, without bytes. */
  set(key: string, address: string, value: V): void {
    this.delete(key);
    const { entries, perAddress, perPrefix } = this.bounds;
    const prefix = `/${prefixOf(address)}`;
    this.#makeRoom(this.#groups.get(address), perAddress);
    this.#makeRoom(this.#groups.get(prefix), perPrefix);
    this.#makeRoom(this.#entries, entries);
    this.#entries.set(key, { value, address, prefix, bytes: 0 });
    for (const name of [address, prefix]) {
      const group = this.#groups.get(name);
      if (group) group.add(key);
      else this.#groups.set(name, new Set([key]));
    }
  }

  /** Counts further bytes of an entry. The oldest other entries give way. Returns false when there is no room even then. */
  grow(key: string, bytes: number): boolean {
    const held = this.#entries.get(key);
    const { bytes: limit = Number.POSITIVE_INFINITY } = this.bounds;
    if (!held || held.bytes + bytes > limit) return false;
    held.bytes += bytes;
    this.#bytes += bytes;
    for (const oldest of this.#entries.keys()) {
      if (this.#bytes <= limit) break;
      if (oldest !== key) this.#evict(oldest);
    }
    return true;
  }

  /** Makes an entry the newest. */
  touch(key: string): void {
    const held = this.#entries.get(key);
    if (!held) return;
    this.#entries.delete(key);
    this.#entries.set(key, held);
    for (const name of [held.address, held.prefix]) {
      const group = this.#groups.get(name);
      group?.delete(key);
      group?.add(key);
    }
  }

  delete(key: string): boolean {
    const held = this.#entries.get(key);
    if (!held) return false;
    this.#entries.delete(key);
    this.#bytes -= held.bytes;
    for (const name of [held.address, held.prefix]) {
      const group = this.#groups.get(name);
      group?.delete(key);
      if (group?.size === 0) this.#groups.delete(name);
    }
    return true;
  }

  /** Keys and values, the oldest first. An entry may be deleted meanwhile. */
  *entries(): Generator<[string, V]> {
    for (const [key, { value }] of this.#entries) yield [key, value];
  }

  /** Number of entries of an address. */
  countOf(address: string): number {
    return this.#groups.get(address)?.size ?? 0;
  }

  #makeRoom(group: { readonly size: number; keys(): Iterator<string> } | undefined, limit: number): void {
    if (!group || group.size < limit) return;
    const { value: oldest } = group.keys().next();
    if (oldest !== undefined) this.#evict(oldest);
  }

  #evict(key: string): void {
    const held = this.#entries.get(key);
    if (held && this.delete(key)) this.#onEvict?.(key, held.value);
  }
}
