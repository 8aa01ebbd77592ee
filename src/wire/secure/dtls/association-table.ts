import { Association, type Place } from './association.ts';

/** The key of an address and port. */
export const keyOf = ({ address, port }: Pick<Place, 'address' | 'port'>): string => `${address}|${port}`;

/** Why an association ends when the table has no room for another one. */
export const tableFull = 'there are too many';

/**
 * Called for an association that gives way to another one. `isReachable` is false when its peer's address is now that of the other
 * one.
 */
type Removed = (association: Association, reason: string, isReachable: boolean) => void;

/** Most associations in all, and with peers that proved one identity to this end. */
export interface AssociationLimits {
  readonly associations: number;
  readonly perIdentity: number;
}

/**
 * All associations of an endpoint, by address, by connection ID and by identity.
 *
 * A peer may have several sockets, each with an association: a few of one identity are kept. A new one replaces that of the same
 * identity at the same address and port, which is that of a peer that has started again. Beyond the bound the one that was silent for
 * longest gives way.
 *
 * At the bound of all, an identity that has one already gives up its own. Else those go first that are further ones of their identity:
 * all but the one that was heard last. So further associations take no place of another peer. Without any, the association that was silent for longest gives way, among those that are
 * vouched for in the same way: by pre-shared keys, by raw public keys, or by one authority. That is the group of the new one, or a
 * larger group. So an authority that gives many names, or many unknown keys, take no place of other groups while these have less.
 */
export class AssociationTable {
  readonly #limits: AssociationLimits;
  readonly #removed: Removed;
  /** By `groupOf`. In each group the one that was silent for longest is first. */
  readonly #groups = new Map<string, Set<Association>>();
  readonly #byAddress = new Map<string, Association>();
  readonly #byCid = new Map<number, Association>();
  /** The associations of an identity, the one heard last at the end. Almost all have one, which takes no array. */
  readonly #byIdentity = new Map<string, Association | readonly Association[]>();
  /** All but the one of their identity that was heard last. The one for which that has been so for longest is first. */
  readonly #further = new Set<Association>();

  constructor(limits: AssociationLimits, removed: Removed) {
    this.#limits = limits;
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

  /** The associations with peers that proved this identity, the one heard last at the end. */
  of(identity: string): readonly Association[] {
    const found = this.#byIdentity.get(identity);
    return found instanceof Association ? [found] : (found ?? []);
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
    const { associations, perIdentity } = this.#limits;
    const remote = keyOf(association.place);
    const former = isClient ? undefined : this.of(identity).find(({ place }) => keyOf(place) === remote);
    if (former) this.#replace(former, remote);
    const own = isClient ? [] : this.of(identity);
    const [silent] = own;
    if (silent && own.length >= perIdentity) this.#giveUp(silent, 'its identity has too many');
    else if (silent && this.size >= associations) this.#giveUp(silent);
    const group = this.#groupOf(association);
    if (this.size >= associations) this.#makeRoom(group);
    group.add(association);
    this.#claim(association);
    if (ownCid !== undefined) this.#byCid.set(ownCid, association);
    if (!isClient) this.#know(identity, [...this.of(identity), association]);
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
    const { identity } = association;
    const all = this.#byIdentity.get(identity);
    if (all === undefined || all instanceof Association || association.isClient) return;
    if (all.at(-1) !== association)
      this.#know(identity, [...all.filter((each) => each !== association), association]);
  }

  delete(association: Association): void {
    const { identity, isClient, ownCid } = association;
    const remote = keyOf(association.place);
    this.#groupOf(association).delete(association);
    if (this.#byAddress.get(remote) === association) this.#byAddress.delete(remote);
    if (ownCid !== undefined && this.#byCid.get(ownCid) === association) this.#byCid.delete(ownCid);
    if (isClient) return;
    this.#further.delete(association);
    this.#know(
      identity,
      this.of(identity).filter((each) => each !== association),
    );
  }

  /** Sets the associations of an identity, the one heard last at the end. */
  #know(identity: string, all: readonly Association[]): void {
    const last = all.at(-1);
    for (const each of all) if (each !== last) this.#further.add(each);
    if (!last) {
      this.#byIdentity.delete(identity);
      return;
    }
    this.#further.delete(last);
    this.#byIdentity.set(identity, all.length === 1 ? last : all);
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

  /**
   * Removes a further association of an identity; without any, the one that was silent for longest from the largest group, from the
   * own one if none is larger.
   */
  #makeRoom(own: Set<Association>): void {
    const [further] = this.#further;
    const largest = [...this.#groups.values()].reduce(
      (most, each) => (each.size > most.size ? each : most),
      own,
    );
    const [silent] = largest;
    const least = further ?? silent;
    if (least) this.#giveUp(least);
  }

  #giveUp(association: Association, reason: string = tableFull): void {
    this.delete(association);
    this.#removed(association, reason, true);
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
