import type { Association, Place } from './association.ts';

/** The key of an address and port. */
export const keyOf = ({ address, port }: Pick<Place, 'address' | 'port'>): string => `${address}|${port}`;

/**
 * Called for an association that gives way to another one. `isReachable` is false when its peer's address is now that of the other
 * one.
 */
type Removed = (association: Association, reason: string, isReachable: boolean) => void;

/**
 * All associations of an endpoint, by address, by connection ID and by identity. A peer that proved its identity to this end has one
 * association: a new one replaces it. At the bound the association that was silent for longest gives way.
 */
export class AssociationTable {
  readonly #limit: number;
  readonly #removed: Removed;
  /** The one that was silent for longest first. */
  readonly #all = new Set<Association>();
  readonly #byAddress = new Map<string, Association>();
  readonly #byCid = new Map<number, Association>();
  readonly #byIdentity = new Map<string, Association>();

  constructor(limit: number, removed: Removed) {
    this.#limit = limit;
    this.#removed = removed;
  }

  get size(): number {
    return this.#all.size;
  }

  at(remote: string): Association | undefined {
    return this.#byAddress.get(remote);
  }

  withCid(cid: number): Association | undefined {
    return this.#byCid.get(cid);
  }

  /** The association with a peer that proved this identity. */
  of(identity: string): Association | undefined {
    return this.#byIdentity.get(identity);
  }

  has(association: Association): boolean {
    return this.#all.has(association);
  }

  /** All associations, the one that was silent for longest first. */
  values(): IterableIterator<Association> {
    return this.#all.values();
  }

  add(association: Association): void {
    const { identity, isClient, ownCid } = association;
    const remote = keyOf(association.place);
    const former = isClient ? undefined : this.#byIdentity.get(identity);
    if (former) this.#replace(former, remote);
    const [silent] = this.#all;
    if (silent && this.#all.size >= this.#limit) {
      this.delete(silent);
      this.#removed(silent, 'there are too many', true);
    }
    this.#all.add(association);
    this.#claim(association);
    if (ownCid !== undefined) this.#byCid.set(ownCid, association);
    if (!isClient) this.#byIdentity.set(identity, association);
  }

  /** Records that the peer is at another place. */
  move(association: Association, place: Place): void {
    const former = keyOf(association.place);
    if (this.#byAddress.get(former) === association) this.#byAddress.delete(former);
    association.place = place;
    this.#claim(association);
  }

  /** Records that the peer was heard. */
  touch(association: Association): void {
    this.#all.delete(association);
    this.#all.add(association);
  }

  delete(association: Association): void {
    const { identity, ownCid } = association;
    const remote = keyOf(association.place);
    this.#all.delete(association);
    if (this.#byAddress.get(remote) === association) this.#byAddress.delete(remote);
    if (ownCid !== undefined && this.#byCid.get(ownCid) === association) this.#byCid.delete(ownCid);
    if (this.#byIdentity.get(identity) === association) this.#byIdentity.delete(identity);
  }

  #claim(association: Association): void {
    const remote = keyOf(association.place);
    const there = this.#byAddress.get(remote);
    // Without a connection ID nothing that the other peer sends could be told to be its own any more.
    if (there && there.ownCid === undefined) this.#replace(there, remote);
    this.#byAddress.set(remote, association);
  }

  #replace(association: Association, by: string): void {
    this.delete(association);
    const isReachable = keyOf(association.place) !== by;
    this.#removed(association, 'it is replaced by a new one', isReachable);
  }
}
