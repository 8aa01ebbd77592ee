import type { Entropy } from '../../base/entropy.ts';

/** Number of counters, a power of two. Peers whose keys have the same hash share one, which then only runs faster. */
const counters = 4096;

/**
 * Source of message IDs (RFC 7252 section 4.4). An ID must not be used again for the same peer within
 * EXCHANGE_LIFETIME, since the peer would take the new message for a repetition. A `Peer` object cannot hold the last
 * ID, because it is dropped when it is idle. The counters here outlive it, in constant memory for any number of peers:
 * the hash of the peer's key selects one of them, and each starts at a random value.
 */
export class MessageIds {
  readonly #next: Uint16Array;

  constructor(entropy: Entropy) {
    const start = entropy.bytes(counters * 2);
    this.#next = new Uint16Array(counters);
    for (let at = 0; at < counters; at++) this.#next[at] = (start[at * 2]! << 8) | start[at * 2 + 1]!;
  }

  /** Returns the next message ID for the peer with this key. */
  take(key: string): number {
    // FNV-1a.
    let hash = 0x811c9dc5;
    for (let at = 0; at < key.length; at++) hash = Math.imul(hash ^ key.charCodeAt(at), 0x01000193);
    const slot = (hash ^ (hash >>> 16)) & (counters - 1);
    const taken = this.#next[slot]!;
    this.#next[slot] = taken + 1;
    return taken;
  }
}
