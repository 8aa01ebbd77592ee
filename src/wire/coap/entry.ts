import { type Admission, conversation, Standing } from '../../base/admission.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Remote } from './message.ts';
import type { Peer } from './peer.ts';

/** Addresses with their ports from which one party counts as proven at a time. */
export const placesOfParty = 4;

/**
 * The entry of an endpoint: which datagrams are decoded. Proven peers, conversations that were admitted before, and answers to own
 * messages have budgets of their own. Everything else needs a token of the `Admission`.
 */
export class Entry {
  readonly #admission: Admission;
  readonly #proven: BoundedMap<string, true>;
  /** Where each party proved itself, the latest last. Most have one place, and an array of each would take three times the memory. */
  readonly #places: BoundedMap<string, string | readonly string[]>;

  /** @param provenPeers most peers that are remembered as proven */
  constructor(admission: Admission, provenPeers: number) {
    this.#admission = admission;
    this.#proven = new BoundedMap(provenPeers);
    this.#places = new BoundedMap(provenPeers);
  }

  /**
   * Records that a party proved itself from this address and port. Of one party the latest `placesOfParty` places count:
   * otherwise one device could take the places of all others.
   */
  vouch({ key, address }: Remote, party: string): void {
    const before = this.#places.get(party);
    if (!this.#proven.has(key)) this.#admission.proved(address, before && party);
    this.#proven.set(key, true);
    const places = [before ?? []].flat().filter((place) => place !== key);
    const kept = places.slice(1 - placesOfParty);
    // `concat` makes an array without room to grow. A literal with a spread would take five times the memory of each peer.
    this.#places.set(party, kept.length > 0 ? kept.concat(key) : key);
    for (const place of places.slice(0, 1 - placesOfParty)) this.#proven.delete(place);
  }

  /** Number of peers that are remembered as proven. */
  get provenPeers(): number {
    return this.#proven.size;
  }

  isProven(key: string): boolean {
    return this.#proven.has(key);
  }

  standingOf({ key, address }: Remote): Standing {
    if (this.#proven.has(key)) return Standing.Proven;
    return this.#admission.isKnown(address) ? Standing.Known : Standing.Stranger;
  }

  /**
   * Whether a datagram is decoded.
   * @param known the peer that sent it, if there is state about it
   */
  admits(datagram: Buffer, { key, address }: Remote, known: Peer | undefined): boolean {
    if (this.#proven.has(key)) return this.#admission.admitsProven(key, address);
    if (known && known.answersDue > 0 && isAnswer(datagram)) {
      known.answersDue--;
      return true;
    }
    if (known && known.credit > 0) {
      known.credit--;
      return true;
    }
    const isAdmitted = this.#admission.admits(address);
    if (isAdmitted && known) known.credit = conversation - 1;
    return isAdmitted;
  }

  /** Whether a datagram that was sent to a group is decoded. */
  admitsMulticast(address: string): boolean {
    return this.#admission.admitsMulticast(address);
  }
}

/** Whether a datagram says that it is an ACK, a Reset or a response. */
const isAnswer = (datagram: Buffer): boolean =>
  datagram.length >= 4 && ((datagram[0]! & 0x20) !== 0 || datagram[1]! >= 0x40);
