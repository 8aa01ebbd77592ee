/** Most numbers that a window tells apart. */
const windowBits = 64;

/** Which sequence numbers were received (RFC 6347 section 4.1.2.6, RFC 8613 section 7.4). */
export class ReplayWindow {
  readonly #bits: number;
  #highest: number;
  /** Bit `n` says that `highest - n` was received. Bits 0 to 31, and 32 to 63. */
  #near: number;
  #far: number;

  /**
   * @param highest the number up to which all count as received; -1 for none
   * @param bits numbers up to the highest that are told apart, at most 64. Those below count as received
   */
  constructor(highest = -1, bits = windowBits) {
    this.#bits = bits;
    this.#highest = highest;
    this.#near = -1;
    this.#far = -1;
  }

  /** The highest number received. */
  get highest(): number {
    return this.#highest;
  }

  /** Counts all numbers up to the highest as received. */
  close(): void {
    this.#near = -1;
    this.#far = -1;
  }

  /** Whether a message with this number is new. It counts as received only after `accept`. */
  isNew(sequence: number): boolean {
    const behind = this.#highest - sequence;
    if (behind < 0) return true;
    if (behind >= this.#bits) return false;
    return ((behind < 32 ? this.#near >>> behind : this.#far >>> (behind - 32)) & 1) === 0;
  }

  /** Records that a message with this number has verified. Returns whether it is the highest so far. */
  accept(sequence: number): boolean {
    const ahead = sequence - this.#highest;
    if (ahead > 0) {
      this.#shift(ahead);
      this.#highest = sequence;
      this.#near |= 1;
      return true;
    }
    if (-ahead < 32) this.#near |= 1 << -ahead;
    else this.#far |= 1 << (-ahead - 32);
    return false;
  }

  #shift(by: number): void {
    if (by >= 64) {
      this.#near = 0;
      this.#far = 0;
    } else if (by >= 32) {
      this.#far = by === 32 ? this.#near : this.#near << (by - 32);
      this.#near = 0;
    } else {
      this.#far = (this.#far << by) | (this.#near >>> (32 - by));
      this.#near <<= by;
    }
  }
}
