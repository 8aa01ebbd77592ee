import { prefixOf } from './address-prefix.ts';
import { BoundedMap } from './bounded-map.ts';
import type { Clock, Monotonic } from './clock.ts';
import type { Events } from './events.ts';
import { type Rate, TokenBucket, TokenBuckets } from './token-buckets.ts';

/**
 * What is known of the sender of a datagram or connection.
 * - `Proven`: a device proved itself from this address and port, so the sender receives there.
 * - `Known`: a device proved itself at this address lately, from another port.
 * - `Stranger`: anyone. A sender of UDP may have forged its address.
 */
export const Standing = { Proven: 0, Known: 1, Stranger: 2 } as const;
export type Standing = (typeof Standing)[keyof typeof Standing];

/** All standings, in order of their numbers. */
export const standings = [Standing.Proven, Standing.Known, Standing.Stranger] as const;

/**
 * Limits of `Admission`. A token admits one conversation: `conversation` datagrams of one address and port, or one HTTP
 * request. So a peer that is admitted can finish its proof, however busy the entry is.
 */
export interface AdmissionLimits {
  /** Of one address of strangers. */
  readonly address: Rate;
  /** Of all strangers of one prefix (`prefixOf`). */
  readonly prefix: Rate;
  /** Of all strangers whose address has used at most a quarter of its burst. */
  readonly newcomers: Rate;
  /** Of all strangers whose address has used more. */
  readonly regulars: Rate;
  /** Of one address where a device proved itself lately. */
  readonly known: Rate;
  /** Of all such addresses together, as long as they have three quarters of their burst. The others share a tenth of it. */
  readonly allKnown: Rate;
  /** Datagrams of one proven address and port. */
  readonly proven: Rate;
  /** Datagrams of all of them together. */
  readonly allProven: Rate;
  /** Multicast requests of one address of strangers, of one prefix, and of all. */
  readonly multicast: Rate;
  readonly multicastPrefix: Rate;
  readonly allMulticast: Rate;
}

const rate = (perSecond: number, burst: number): Rate => ({ rate: perSecond, burst });

export const admissionDefaults: AdmissionLimits = {
  address: rate(1, 64),
  prefix: rate(100, 1024),
  newcomers: rate(500, 2048),
  regulars: rate(50, 256),
  known: rate(200, 1024),
  allKnown: rate(1000, 8192),
  proven: rate(10_000, 10_000),
  allProven: rate(40_000, 40_000),
  multicast: rate(2, 16),
  multicastPrefix: rate(2000, 2000),
  allMulticast: rate(3000, 3000),
};

/** Datagrams of one address and port that one token admits. */
export const conversation = 16;
/** Share of an address's burst that must be left for the address to count as a newcomer. */
const newcomerShare = 0.75;
/** Tokens that a proof puts back: its own, and those of others that waited. A burst of honest devices so pays for itself. */
const proofRefund = 5;
/**
 * Proofs of one party at new places that count: that make the address known, and put tokens back. Otherwise one device with an
 * account could make all of its network known in place of the addresses of others, and raise the limit of strangers.
 */
export const partyProofs: Rate = rate(1 / 60, 8);
/** Most addresses, prefixes, parties and proven peers with a token bucket. An entry has about 200 bytes. */
export const admissionTable = {
  addresses: 8192,
  prefixes: 2048,
  known: 16_384,
  parties: 16_384,
  proven: 32_768,
} as const;
/** Milliseconds between two events about datagrams that were not admitted. */
const tellEvery = 60_000;

/** Which limit refused a datagram. */
type Scope = 'address' | 'prefix' | 'total' | 'proven' | 'multicast' | 'connections';

/** How many datagrams, requests and connections were not admitted, and what holds for the latest of them. */
export interface Refusals {
  readonly count: number;
  readonly limit: Scope;
  /** Its address. */
  readonly peer: string;
}

export interface AdmissionParts {
  readonly clock: Clock;
  readonly events: Events;
  /** Replaces single values of `admissionDefaults`. */
  readonly limits?: Partial<AdmissionLimits> | undefined;
  /** Most addresses that are remembered as known. */
  readonly known?: number;
}

/**
 * The entry of the private network: says of each datagram and each HTTP request whether it is looked at, before anything of it is
 * parsed. Strangers, known addresses, proven peers and multicast have budgets of their own. What is not admitted gets no
 * answer, so that it costs little; a client sends it again by itself.
 *
 * Addresses that ask much share a tenth, as the sources of a `FairBudget` do. It is not that class, because its limits are others: here
 * an address with an empty bucket gets nothing, where a source of a `FairBudget` then shares the tenth; the line is at a quarter of
 * the burst; and the budget of the prefix stands between that of the address and that of all. A common class would take all three as
 * parameters, for each datagram.
 */
export class Admission {
  readonly limits: AdmissionLimits;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #known: BoundedMap<string, true>;
  readonly #addresses: TokenBuckets;
  readonly #prefixes: TokenBuckets;
  readonly #knownAddresses: TokenBuckets;
  readonly #parties: TokenBuckets;
  readonly #proven: TokenBuckets;
  readonly #multicastAddresses: TokenBuckets;
  readonly #multicastPrefixes: TokenBuckets;
  readonly #newcomers: TokenBucket;
  readonly #regulars: TokenBucket;
  readonly #allKnown: TokenBucket;
  /** Of known addresses that have used a quarter of their burst. */
  readonly #busyKnown: TokenBucket;
  readonly #busyRate: Rate;
  readonly #allProven: TokenBucket;
  readonly #allMulticast: TokenBucket;
  #refused = 0;
  #refusedInAll = 0;
  #latest: Omit<Refusals, 'count'> | undefined;
  #toldAt = Number.NEGATIVE_INFINITY;

  constructor({ clock, events, limits, known = admissionTable.known }: AdmissionParts) {
    this.limits = { ...admissionDefaults, ...limits };
    this.#clock = clock;
    this.#events = events;
    this.#known = new BoundedMap(known);
    const { addresses, prefixes, parties } = admissionTable;
    this.#parties = new TokenBuckets(partyProofs, parties);
    this.#addresses = new TokenBuckets(this.limits.address, addresses);
    this.#prefixes = new TokenBuckets(this.limits.prefix, prefixes);
    this.#knownAddresses = new TokenBuckets(this.limits.known, addresses);
    this.#proven = new TokenBuckets(this.limits.proven, admissionTable.proven);
    this.#multicastAddresses = new TokenBuckets(this.limits.multicast, addresses);
    this.#multicastPrefixes = new TokenBuckets(this.limits.multicastPrefix, prefixes);
    const total = (of: Rate) => new TokenBucket(of, clock.now());
    this.#newcomers = total(this.limits.newcomers);
    this.#regulars = total(this.limits.regulars);
    this.#allKnown = total(this.limits.allKnown);
    const { rate: all, burst } = this.limits.allKnown;
    this.#busyRate = { rate: all / 10, burst: Math.ceil(burst / 10) };
    this.#busyKnown = total(this.#busyRate);
    this.#allProven = total(this.limits.allProven);
    this.#allMulticast = total(this.limits.allMulticast);
  }

  /** How much state is kept, for the tests of the bounds. */
  get footprint() {
    return {
      addresses: this.#addresses.size,
      prefixes: this.#prefixes.size,
      known: this.#known.size,
      knownAddresses: this.#knownAddresses.size,
      parties: this.#parties.size,
      proven: this.#proven.size,
      multicastAddresses: this.#multicastAddresses.size,
      multicastPrefixes: this.#multicastPrefixes.size,
      refused: this.#refusedInAll,
    };
  }

  /** What was not admitted since the start. Undefined when all was. */
  get refusals(): Refusals | undefined {
    return this.#latest && { count: this.#refusedInAll, ...this.#latest };
  }

  /** Whether a device proved itself at this address lately. */
  isKnown(address: string): boolean {
    return this.#known.has(address);
  }

  /** Remembers an address where a device proved itself, without the refund of a new proof. */
  know(address: string): void {
    this.#known.set(address, true);
  }

  /**
   * To be called when a device has proved itself at a new address and port.
   * @param party its name; undefined for its first proof, which counts without a bucket: most devices have no other
   */
  proved(address: string, party: string | undefined): void {
    const now = this.#clock.now();
    const counts = party === undefined || this.#parties.of(party, now).take(partyProofs, now);
    if (counts || this.#known.has(address)) this.know(address);
    if (!counts) return;
    const { known, allKnown, prefix, newcomers } = this.limits;
    this.#knownAddresses.of(address, now).give(proofRefund, known, now);
    this.#prefixes.of(prefixOf(address), now).give(proofRefund, prefix, now);
    this.#allKnown.give(proofRefund, allKnown, now);
    this.#newcomers.give(proofRefund, newcomers, now);
  }

  /** Whether a datagram of a proven peer is admitted. `key` is that of its `Remote`. */
  admitsProven(key: string, address: string): boolean {
    const now = this.#clock.now();
    const { proven, allProven } = this.limits;
    return (
      (this.#proven.of(key, now).take(proven, now) && this.#allProven.take(allProven, now)) ||
      this.#refuse('proven', address)
    );
  }

  /**
   * Whether a conversation with an address and port that is not proven may begin, or go on.
   * @param tokens what it takes; less than 1 for a part of a conversation
   */
  admits(address: string, tokens = 1): boolean {
    const now = this.#clock.now();
    // Known addresses can be forged as well. When they have used their budget up, they are admitted like others.
    if (this.#known.has(address) && this.#admitsKnown(address, now, tokens)) return true;
    const { address: own, prefix, newcomers, regulars } = this.limits;
    const bucket = this.#addresses.of(address, now);
    const isNewcomer = bucket.level(own, now) > own.burst * newcomerShare;
    if (!bucket.take(own, now, tokens)) return this.#refuse('address', address);
    if (!this.#prefixes.of(prefixOf(address), now).take(prefix, now, tokens))
      return this.#refuse('prefix', address);
    const isRoom = isNewcomer
      ? this.#newcomers.take(newcomers, now, tokens)
      : this.#regulars.take(regulars, now, tokens);
    return isRoom || this.#refuse('total', address);
  }

  /** Whether a multicast request is admitted. */
  admitsMulticast(address: string): boolean {
    const now = this.#clock.now();
    if (this.#known.has(address) && this.#admitsKnown(address, now)) return true;
    const { multicast, multicastPrefix, allMulticast } = this.limits;
    return (
      (this.#multicastAddresses.of(address, now).take(multicast, now) &&
        this.#multicastPrefixes.of(prefixOf(address), now).take(multicastPrefix, now) &&
        this.#allMulticast.take(allMulticast, now)) ||
      this.#refuse('multicast', address)
    );
  }

  /** Counts a connection that was closed because there are too many. */
  refusedConnection(address: string): void {
    this.#refuse('connections', address);
  }

  /** As for strangers, addresses that have used a quarter of their burst share a tenth of the total. */
  #admitsKnown(address: string, now: Monotonic, tokens = 1): boolean {
    const { known, allKnown } = this.limits;
    const bucket = this.#knownAddresses.of(address, now);
    const isNewcomer = bucket.level(known, now) > known.burst * newcomerShare;
    if (!bucket.take(known, now, tokens)) return false;
    return isNewcomer
      ? this.#allKnown.take(allKnown, now, tokens)
      : this.#busyKnown.take(this.#busyRate, now, tokens);
  }

  /** Counts what is not admitted, and tells it once a minute. */
  #refuse(limit: Scope, peer: string): false {
    this.#refused++;
    this.#refusedInAll++;
    this.#latest = { limit, peer };
    const now = this.#clock.now();
    if (now - this.#toldAt < tellEvery) return false;
    this.#toldAt = now;
    this.#events.emit('admission.refused', { limit, peer, refused: this.#refused });
    this.#refused = 0;
    return false;
  }
}
