import { ReplayWindow } from '../replay-window.ts';

/** Numbers that the window tells apart (RFC 8613 section 3.2.2). */
const windowBits = 32;

/**
 * What is known of the sequence numbers of a peer. A new run of the process knows nothing of them: a request counts only when it
 * holds a fresh Echo (RFC 8613 appendix B.1.2). The peer's numbers rise, so all requests with a higher number are fresh too.
 */
export class Freshness {
  readonly #window = new ReplayWindow(-1, windowBits);
  /** Numbers below may come from before this run, so they need an Echo. */
  #freshFrom = Number.POSITIVE_INFINITY;

  /** Whether any request was proved to be fresh. */
  get isKnown(): boolean {
    return this.#freshFrom < Number.POSITIVE_INFINITY;
  }

  /** Whether a number was not received yet, as far as is known. */
  isNew(sequence: number): boolean {
    return this.#window.isNew(sequence);
  }

  /**
   * Takes a request that has verified, and is new. Returns false when its sender has to repeat it with an Echo first.
   * @param isEchoed it holds an Echo that was made for the sender in this run
   */
  accept(sequence: number, isEchoed: boolean): boolean {
    if (sequence < this.#freshFrom && !isEchoed) return false;
    this.#window.accept(sequence);
    this.#freshFrom = Math.min(this.#freshFrom, sequence);
    return true;
  }
}
