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
 * association: a new one replaces it. At the bound the association that was silent for longest gives way, among those that are
 * vouched for in the same way: by pre-shared keys, by raw public keys, or by one authority. That is the group of the new one, or a
 * larger group. So an authority that gives many names, or many unknown keys, take no place of other groups while these have less.
 */
export class AssociationTable {
  readonly #limit: number;
  readonly #removed: Removed;
  /** By `groupOf`. In each group the one that was silent for longest is first. */
  readonly #groups = new Map<string, Set<Association>>();
  readonly #byAddress = new Map<string, Association>();
  readonly #byCid = new Map<number, Association>();
  readonly #byIdentity = new Map<string, Association>();

  constructor(limit: number, removed: Removed) {
    this.#limit = limit;
    this.#removed = removed;
  }

  get size(): number {
    let size = 0;
    for (const group of this.#groups.values()) size += group.size;
    return size;
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
    return this.#groupOf(association).has(association);
  }

  /** All associations. */
  *values(): Generator<Association> {
    for (const group of this.#groups.values()) yield* group;
  }

  add(association: Association): void {
    const { identity, isClient, ownCid } = association;
    const remote = keyOf(association.place);
    const former = isClient ? undefined : this.#byIdentity.get(identity);
    if (former) this.#replace(former, remote);
    const group = this.#groupOf(association);
    if (this.size >= this.#limit) this.#makeRoom(group);
    group.add(association);
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
    const group = this.#groupOf(association);
    group.delete(association);
    group.add(association);
  }

  delete(association: Association): void {
    const { identity, ownCid } = association;
    const remote = keyOf(association.place);
    this.#groupOf(association).delete(association);
    if (this.#byAddress.get(remote) === association) this.#byAddress.delete(remote);
    if (ownCid !== undefined && this.#byCid.get(ownCid) === association) this.#byCid.delete(ownCid);
    if (this.#byIdentity.get(identity) === association) this.#byIdentity.delete(identity);
  }

  #groupOf({ proof = '' }: Association): Set<Association> {
    // The last word of a proof is of one peer alone.
    const name = proof.slice(0, proof.lastIndexOf(' '));
    const known = this.#groups.get(name);
    if (known) return known;
    const made = new Set<Association>();
    this.#groups.set(name, made);
    return made;
  }

  /** Removes the association that was silent for longest from the largest group; from the own one if none is larger. */
  #makeRoom(own: Set<Association>): void {
    const largest = [...this.#groups.values()].reduce(
      (most, each) => (each.size > most.size ? each : most),
      own,
    );
    const [silent] = largest;
    if (!silent) return;
    this.delete(silent);
    this.#removed(silent, 'there are too many', true);
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
