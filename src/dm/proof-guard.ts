import { senderOf } from '../base/address-prefix.ts';
import { BoundedMap } from '../base/bounded-map.ts';
import type { Clock } from '../base/clock.ts';
import { PosternError } from '../base/errors.ts';
import { FairBudget } from '../base/fair-budget.ts';
import { type Rate, type TokenBucket, TokenBuckets } from '../base/token-buckets.ts';
import { LockOut } from './lock-out.ts';

/**
 * Wrong proofs that are looked at: of one party by whatever way; of one party by one sender (`senderOf`); of one sender; and of all
 * parties together.
 */
export const guessRates = {
  party: { rate: 1, burst: 256 },
  share: { rate: 0.1, burst: 32 },
  address: { rate: 0.5, burst: 32 },
  total: { rate: 20, burst: 1024 },
} as const satisfies Record<string, Rate>;
/** Parties and addresses whose wrong proofs are counted, and entrances. */
const limits = { parties: 4096, addresses: 2048, entrances: 1024 } as const;

/** How a message came in. */
export interface Way {
  /** Address that it came from. */
  readonly address: string;
  /** Whose address it is, where `senderOf` cannot tell it from the text. */
  readonly sender?: string;
  /** Where others can come in that have other rates: the gateway at the broker. Absent where there is one entrance. */
  readonly entrance?: string;
}

/**
 * Limits guesses. Failures are counted by the way that they came by: a party, and the address that failed in its name. So
 * nobody locks a party out from elsewhere. All failures of a party, and all failures together, have a rate besides, because
 * someone may have many addresses. These rates are kept for each entrance, and an address that fails often gets a small share of
 * the rate of all, whatever names it fails in. So some addresses do not use up what others need. All addresses of an IPv6 /64 are
 * one sender here. A party at the address where it proved itself last counts by itself: what its neighbours do does not touch it.
 */
export class ProofGuard {
  readonly #clock: Clock;
  readonly #ways: LockOut;
  readonly #totals = new BoundedMap<string, FairBudget>(limits.entrances);
  readonly #parties = new TokenBuckets(guessRates.party, limits.parties);
  readonly #shares = new TokenBuckets(guessRates.share, limits.parties);
  /** Where each party proved itself last. */
  readonly #proved = new BoundedMap<string, string>(limits.parties);

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#ways = new LockOut(clock);
  }

  /** Why no guess of this party is looked at now, by this way: `lockedOut`. Undefined when one is. */
  lockOf(party: string, way: Way): PosternError | undefined {
    const now = this.#clock.now();
    const seconds = Math.ceil(this.#ways.remaining(keyOf(party, way)) / 1000);
    const isLeft =
      this.#partyBucket(party, way).level(guessRates.party, now) >= 1 &&
      this.#totalOf(way).has(this.#sourceOf(party, way), now) &&
      (this.#isProvedAt(party, way) || this.#shareOf(party, way).level(guessRates.share, now) >= 1);
    if (seconds <= 0 && isLeft) return undefined;
    return new PosternError('lockedOut', `too many failed proofs; try again in ${Math.max(1, seconds)} s`);
  }

  /** Counts a wrong proof. Returns how many there were in a row by this way. */
  failed(party: string, way: Way): number {
    const now = this.#clock.now();
    this.#partyBucket(party, way).take(guessRates.party, now);
    this.#totalOf(way).take(this.#sourceOf(party, way), now);
    if (!this.#isProvedAt(party, way)) this.#shareOf(party, way).take(guessRates.share, now);
    return this.#ways.failed(keyOf(party, way));
  }

  /** Forgets the failures by this way. */
  succeeded(party: string, way: Way): void {
    this.#ways.succeeded(keyOf(party, way));
    this.#proved.set(party, placeOf(way));
  }

  #isProvedAt(party: string, way: Way): boolean {
    return this.#proved.get(party) === placeOf(way);
  }

  /** What shares the rate of all fairly: the sender, or the party itself where it proved itself. */
  #sourceOf(party: string, way: Way): string {
    return this.#isProvedAt(party, way) ? keyOf(party, way) : senderIn(way);
  }

  #shareOf(party: string, way: Way): TokenBucket {
    return this.#shares.of(`${way.entrance ?? ''} ${senderIn(way)} ${party}`, this.#clock.now());
  }

  #partyBucket(party: string, { entrance = '' }: Way): TokenBucket {
    return this.#parties.of(`${entrance} ${party}`, this.#clock.now());
  }

  #totalOf({ entrance = '' }: Way): FairBudget {
    const { address: own, total: all } = guessRates;
    const total =
      this.#totals.get(entrance) ?? new FairBudget({ own, all }, limits.addresses, this.#clock.now());
    this.#totals.set(entrance, total);
    return total;
  }
}

const keyOf = (party: string, { entrance = '', address }: Way): string => `${entrance} ${address} ${party}`;
const placeOf = ({ entrance = '', address }: Way): string => `${entrance} ${address}`;
const senderIn = ({ address, sender = senderOf(address) }: Way): string => sender;
