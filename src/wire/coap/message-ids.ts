import type { Entropy } from '../../base/entropy.ts';

/** Counters; peers share one by chance, which only makes it run faster. A power of two. */
const counters = 4096;

/**
 * Message IDs (RFC 7252 section 4.4): one that went to a peer does not go there again within EXCHANGE_LIFETIME, or the
 * peer would take what is new for a repetition. Peers are forgotten when nothing is going on with them, so what was
 * used is remembered here, in as much memory for any number of them: a counter with a random start for those of one hash.
 */
export class MessageIds {
  readonly #next: Uint16Array;

  constructor(entropy: Entropy) {
    const start = entropy.bytes(counters * 2);
    this.#next = new Uint16Array(counters);
    for (let at = 0; at < counters; at++) this.#next[at] = (start[at * 2]! << 8) | start[at * 2 + 1]!;
  }

  /** @param key of the peer */
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
