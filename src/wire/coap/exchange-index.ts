import type { Entropy } from '../../base/entropy.ts';
import type { Exchange, Peer } from './peer.ts';

/** Buckets at the start, a power of two. */
const firstBuckets = 64;

/**
 * Finds the exchange with a message ID of a peer, and links the exchanges of a peer in order of arrival.
 *
 * It is a hash table and not a `Map` in each peer, because each request adds an entry and removes one. A `Map` is then rebuilt
 * again and again, and V8 keeps what was rebuilt, with all exchanges in it, until the next full collection.
 */
export class ExchangeIndex {
  /** Random, so that nobody can choose ports and message IDs that share a bucket. */
  readonly #factors: readonly [number, number];
  #buckets = emptyBuckets(firstBuckets);
  #entries = 0;

  constructor(entropy: Entropy) {
    const odd = () => Math.floor(entropy.uniform() * 2 ** 32) | 1;
    this.#factors = [odd(), odd()];
  }

  find(peer: Peer, messageId: number): Exchange | undefined {
    let found = this.#buckets[this.#bucketOf(peer, messageId)];
    while (found && (found.messageId !== messageId || found.peer !== peer)) found = found.next;
    return found;
  }

  add(exchange: Exchange): void {
    const { peer } = exchange;
    exchange.earlier = peer.lastExchange;
    if (peer.lastExchange) peer.lastExchange.later = exchange;
    else peer.firstExchange = exchange;
    peer.lastExchange = exchange;
    peer.exchanges++;
    this.#entries++;
    if (this.#entries > this.#buckets.length) this.#grow();
    this.#link(exchange);
  }

  remove(exchange: Exchange): void {
    const { peer, earlier, later } = exchange;
    if (earlier) earlier.later = later;
    else peer.firstExchange = later;
    if (later) later.earlier = earlier;
    else peer.lastExchange = earlier;
    peer.exchanges--;
    this.#entries--;
    this.#unlink(exchange);
    exchange.earlier = undefined;
    exchange.later = undefined;
    exchange.next = undefined;
  }

  #bucketOf({ serial }: Peer, messageId: number): number {
    const [ofPeer, ofMessage] = this.#factors;
    const hash = Math.imul(serial, ofPeer) + Math.imul(messageId, ofMessage);
    // The upper bits: they depend on all bits of both numbers.
    return (hash >>> 16) & (this.#buckets.length - 1);
  }

  #link(exchange: Exchange): void {
    const bucket = this.#bucketOf(exchange.peer, exchange.messageId);
    exchange.next = this.#buckets[bucket];
    this.#buckets[bucket] = exchange;
  }

  #unlink(exchange: Exchange): void {
    const bucket = this.#bucketOf(exchange.peer, exchange.messageId);
    let before = this.#buckets[bucket];
    if (before === exchange) {
      this.#buckets[bucket] = exchange.next;
      return;
    }
    while (before && before.next !== exchange) before = before.next;
    if (before) before.next = exchange.next;
  }

  /** Doubles the buckets. There are at most twice as many as exchanges in all tables. */
  #grow(): void {
    const before = this.#buckets;
    this.#buckets = emptyBuckets(before.length * 2);
    for (let exchange of before)
      while (exchange) {
        const { next }: Exchange = exchange;
        this.#link(exchange);
        exchange = next;
      }
  }
}

const emptyBuckets = (count: number): (Exchange | undefined)[] =>
  new Array<Exchange | undefined>(count).fill(undefined);
