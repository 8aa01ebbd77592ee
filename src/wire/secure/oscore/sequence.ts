import { PosternError } from '../../../base/errors.ts';

/** Numbers that are reserved at a time. Fewer mean more writes, more leave larger gaps after a power cut. */
export const reservedBlock = 1024;
/** A Partial IV has five octets (RFC 8613 section 7.2.1). */
export const mostNumbers = 2 ** 40;

/**
 * The sequence numbers of a sender. Each is used once, also when the process ends at any moment: a number is used only after the
 * reservation of its block is durable (RFC 8613 appendix B.1.1).
 */
export class SenderSequence {
  #next: number;
  /** The first number that is not reserved. */
  #end: number;
  readonly #reserve: (end: number) => Promise<void>;
  #reserving: Promise<void> | undefined;

  /**
   * @param start the first number that no earlier run of the process may have used
   * @param reserve stores that the numbers before `end` may be used, and resolves when that is durable
   */
  constructor(start: number, reserve: (end: number) => Promise<void>) {
    this.#next = start;
    this.#end = start;
    this.#reserve = reserve;
  }

  /**
   * Resolves with a number that was never used before.
   * @throws {PosternError} `unavailable` when all are used; else what the reservation failed with. Nothing is used then
   */
  async take(): Promise<number> {
    while (this.#next >= this.#end) {
      if (this.#end >= mostNumbers)
        throw new PosternError('unavailable', 'all sequence numbers of this security context are used');
      this.#reserving ??= this.#extend().finally(() => {
        this.#reserving = undefined;
      });
      await this.#reserving;
    }
    return this.#next++;
  }

  async #extend(): Promise<void> {
    const end = Math.min(this.#end + reservedBlock, mostNumbers);
    await this.#reserve(end);
    this.#end = end;
  }
}
