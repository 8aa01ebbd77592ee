import { Standing, standings } from '../../base/admission.ts';
import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { type DeduplicationLimits, RecentExchanges, unprovenShare } from './deduplication.ts';
import { ExchangeIndex } from './exchange-index.ts';
import type { Exchange, Peer } from './peer.ts';

export interface ExchangesParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly limits: DeduplicationLimits;
  /** Called with a peer when its last exchange is dropped. */
  readonly forgetIdle: (peer: Peer) => void;
}

/** Milliseconds that the sweep comes after the oldest expiry, so that one sweep drops many exchanges. */
const sweepSlack = 1000;

/** The exchanges that an endpoint remembers, in one table for each standing of their peers. */
export class Exchanges {
  readonly #clock: Clock;
  readonly #index: ExchangeIndex;
  /** By standing. */
  readonly #tables: readonly RecentExchanges[];
  #sweep: Timer | undefined;

  constructor({ clock, entropy, limits, forgetIdle }: ExchangesParts) {
    this.#clock = clock;
    this.#index = new ExchangeIndex(entropy);
    this.#tables = standings.map((standing) => {
      const own = standing === Standing.Proven ? limits : unprovenShare(limits);
      return new RecentExchanges(own, this.#index, forgetIdle);
    });
  }

  /** Number of exchanges that are remembered. */
  get size(): number {
    return this.#tables.reduce((sum, { entries }) => sum + entries, 0);
  }

  /** Bytes of their replies. */
  get bytes(): number {
    return this.#tables.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The exchange of a message that was received before. */
  find(peer: Peer, messageId: number, now: Monotonic): Exchange | undefined {
    const found = this.#index.find(peer, messageId);
    return found && found.expires > now ? found : undefined;
  }

  /** Remembers a message that has just arrived, in the table of the peer's present standing. */
  open(peer: Peer, messageId: number, now: Monotonic): Exchange {
    const exchange = this.#tables[peer.standing]!.open(peer, messageId, now);
    if (!this.#sweep) this.#armSweep();
    return exchange;
  }

  /** Forgets all. */
  stop(): void {
    this.#sweep?.cancel();
    for (const table of this.#tables) table.clear();
  }

  /** Sets one timer, for the oldest exchange. It frees memory when no further messages arrive. */
  #armSweep(): void {
    const expiries = this.#tables.flatMap(({ nextExpiry }) => nextExpiry ?? []);
    if (expiries.length === 0) return;
    const next = Math.min(...expiries);
    this.#sweep = this.#clock.after(next - this.#clock.now() + sweepSlack, () => {
      this.#sweep = undefined;
      for (const table of this.#tables) table.expire(this.#clock.now());
      this.#armSweep();
    });
  }
}
