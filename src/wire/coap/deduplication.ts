import type { Monotonic } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import type { ExchangeIndex } from './exchange-index.ts';
import { KeptReplies } from './kept-replies.ts';
import type { Exchange, ExchangeTable, Peer } from './peer.ts';

/**
 * Bounds of deduplication: by time, by count and by bytes. At a bound the oldest exchange is forgotten. Count and bytes are those
 * of proven peers; known addresses and strangers have half as much each, in tables of their own.
 */
export interface DeduplicationLimits {
  /** Milliseconds that a message ID is remembered: EXCHANGE_LIFETIME of RFC 7252 section 4.8.2. */
  readonly lifetime: number;
  /** Most exchanges that are remembered, of all proven peers. */
  readonly entries: number;
  /** Most exchanges that are remembered, of one peer. */
  readonly entriesPerPeer: number;
  /** Most bytes of the replies that are kept, of all proven peers. */
  readonly bytes: number;
}

export const deduplicationDefaults: DeduplicationLimits = {
  lifetime: 247_000,
  entries: 4096,
  entriesPerPeer: 1024,
  bytes: 2 * 1024 * 1024,
};

/** The bounds for peers that have not proved themselves. */
export const unprovenShare = (limits: DeduplicationLimits): DeduplicationLimits => ({
  ...limits,
  entries: Math.ceil(limits.entries / 2),
  bytes: Math.ceil(limits.bytes / 2),
});

/**
 * The messages received lately and the replies to them (RFC 7252 section 4.5), bounded by time, count and bytes. All
 * exchanges have the same lifetime, so their order of arrival is also their order of expiry. Therefore no exchange needs
 * a timer of its own: a linked list in order of arrival is enough, and expired exchanges are dropped from its old end.
 */
export class RecentExchanges implements ExchangeTable {
  readonly #limits: DeduplicationLimits;
  readonly #index: ExchangeIndex;
  readonly #forgotten: (peer: Peer) => void;
  readonly #replies = new KeptReplies();
  #oldest: Exchange | undefined;
  #youngest: Exchange | undefined;
  #entries = 0;
  #bytes = 0;
  /** Until then it is not necessary to look at the oldest exchange, whose memory is no longer in the cache. */
  #noneExpiresBefore = 0 as Monotonic;

  /** `forgotten` is called with a peer when the last exchange of that peer is dropped. */
  constructor(limits: DeduplicationLimits, index: ExchangeIndex, forgotten: (peer: Peer) => void) {
    this.#limits = limits;
    this.#index = index;
    this.#forgotten = forgotten;
  }

  get entries(): number {
    return this.#entries;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** When the oldest exchange expires. `undefined` when there is none. */
  get nextExpiry(): Monotonic | undefined {
    return this.#oldest?.expires;
  }

  /** Adds a message that has just arrived. Its exchange has no reply yet. */
  open(peer: Peer, messageId: number, now: Monotonic): Exchange {
    const exchange: Exchange = {
      peer,
      messageId,
      expires: plus(now, this.#limits.lifetime),
      table: this,
      reply: undefined,
      replyBytes: 0,
      older: this.#youngest,
      younger: undefined,
      earlier: undefined,
      later: undefined,
      next: undefined,
    };
    if (this.#youngest) this.#youngest.younger = exchange;
    else this.#oldest = exchange;
    this.#youngest = exchange;
    this.#entries++;
    this.#index.add(exchange);
    const first = peer.firstExchange;
    if (peer.exchanges > this.#limits.entriesPerPeer) first?.table?.forget(first);
    if (now >= this.#noneExpiresBefore) this.expire(now);
    while (this.#entries > this.#limits.entries && this.#oldest) this.forget(this.#oldest);
    return exchange;
  }

  /** Keeps the reply, to be sent again when the message is repeated. Does nothing if the exchange was dropped or has one. */
  complete(exchange: Exchange, reply: Buffer): void {
    if (exchange.table !== this || exchange.reply !== undefined) return;
    exchange.reply = this.#replies.keep(reply);
    exchange.replyBytes = reply.length;
    this.#bytes += reply.length;
    while (this.#bytes > this.#limits.bytes && this.#oldest && this.#oldest !== exchange)
      this.forget(this.#oldest);
  }

  /** The reply, if it is there and still kept. */
  replyOf({ table, reply, replyBytes }: Exchange): Buffer | undefined {
    return table === this && reply !== undefined ? this.#replies.read(reply, replyBytes) : undefined;
  }

  /** Drops all exchanges that have expired. */
  expire(now: Monotonic): void {
    while (this.#oldest && this.#oldest.expires <= now) this.forget(this.#oldest);
    this.#noneExpiresBefore = this.#oldest?.expires ?? plus(now, this.#limits.lifetime);
  }

  /** Drops one exchange. */
  forget(exchange: Exchange): void {
    const { older, younger, peer } = exchange;
    if (older) older.younger = younger;
    else this.#oldest = younger;
    if (younger) younger.older = older;
    else this.#youngest = older;
    // What is dropped must lead to nothing: once it is among the old objects, it would keep alive what came after it.
    exchange.older = undefined;
    exchange.younger = undefined;
    exchange.table = undefined;
    this.#entries--;
    this.#bytes -= exchange.replyBytes;
    if (exchange.reply !== undefined) this.#replies.drop(exchange.reply);
    exchange.reply = undefined;
    this.#index.remove(exchange);
    if (peer.exchanges === 0) this.#forgotten(peer);
  }

  clear(): void {
    while (this.#oldest) this.forget(this.#oldest);
  }
}
