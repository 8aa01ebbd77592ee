import type { Monotonic } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import type { Exchange, Peer } from './peer.ts';

export interface DeduplicationLimits {
  /** Milliseconds that a message ID is remembered: EXCHANGE_LIFETIME of RFC 7252 section 4.8.2. */
  readonly lifetime: number;
  /** Exchanges remembered in all, and for one peer; at the bound the oldest is forgotten. */
  readonly entries: number;
  readonly entriesPerPeer: number;
  /** Bytes of kept replies in all. */
  readonly bytes: number;
}

export const deduplicationDefaults: DeduplicationLimits = {
  lifetime: 247_000,
  entries: 4096,
  entriesPerPeer: 1024,
  bytes: 2 * 1024 * 1024,
};

/**
 * What was answered to whom (RFC 7252 section 4.5), bounded by time, entries and bytes. No timer and no cache node per
 * exchange: all have one lifetime, so the order of arrival is the order of expiry, and the oldest are dropped in passing.
 */
export class RecentExchanges {
  readonly #limits: DeduplicationLimits;
  readonly #forgotten: (peer: Peer) => void;
  #oldest: Exchange | undefined;
  #youngest: Exchange | undefined;
  #entries = 0;
  #bytes = 0;

  /** `forgotten` hears of a peer when its last exchange goes. */
  constructor(limits: DeduplicationLimits, forgotten: (peer: Peer) => void) {
    this.#limits = limits;
    this.#forgotten = forgotten;
  }

  get entries(): number {
    return this.#entries;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** When the oldest expires. */
  get nextExpiry(): Monotonic | undefined {
    return this.#oldest?.expires;
  }

  open(peer: Peer, messageId: number, now: Monotonic): Exchange {
    const exchange: Exchange = {
      peer,
      messageId,
      expires: plus(now, this.#limits.lifetime),
      reply: undefined,
      older: this.#youngest,
      younger: undefined,
    };
    if (this.#youngest) this.#youngest.younger = exchange;
    else this.#oldest = exchange;
    this.#youngest = exchange;
    this.#entries++;
    peer.exchanges.set(messageId, exchange);
    if (peer.exchanges.size > this.#limits.entriesPerPeer) {
      const [first] = peer.exchanges.values();
      if (first) this.forget(first);
    }
    this.expire(now);
    while (this.#entries > this.#limits.entries && this.#oldest) this.forget(this.#oldest);
    return exchange;
  }

  complete(exchange: Exchange, reply: Buffer): void {
    if (exchange.peer.exchanges.get(exchange.messageId) !== exchange) return;
    this.#bytes += reply.length - (exchange.reply?.length ?? 0);
    exchange.reply = reply;
    while (this.#bytes > this.#limits.bytes && this.#oldest && this.#oldest !== exchange)
      this.forget(this.#oldest);
  }

  expire(now: Monotonic): void {
    while (this.#oldest && this.#oldest.expires <= now) this.forget(this.#oldest);
  }

  forget(exchange: Exchange): void {
    const { older, younger, peer } = exchange;
    if (older) older.younger = younger;
    else this.#oldest = younger;
    if (younger) younger.older = older;
    else this.#youngest = older;
    exchange.older = undefined;
    exchange.younger = undefined;
    this.#entries--;
    this.#bytes -= exchange.reply?.length ?? 0;
    peer.exchanges.delete(exchange.messageId);
    if (peer.exchanges.size === 0) this.#forgotten(peer);
  }

  clear(): void {
    while (this.#oldest) this.forget(this.#oldest);
  }
}
