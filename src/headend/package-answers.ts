import { PosternError } from '../base/errors.ts';
import { ownBytes } from '../base/own-bytes.ts';

/** Packages in work with their bytes, and answers that are kept for duplicates with their bytes. */
export const answerLimits = {
  working: 4096,
  workingBytes: 32 * 1024 * 1024,
  kept: 4096,
  keptBytes: 16 * 1024 * 1024,
} as const;

/**
 * The answers to packages, each made once. A package that comes again while its answer is being made, or is kept, gets the same
 * one. The answer that was made longest ago is forgotten first.
 */
export class PackageAnswers {
  readonly #limits: Readonly<Record<keyof typeof answerLimits, number>>;
  readonly #working = new Map<string, Promise<Buffer>>();
  readonly #kept = new Map<string, Buffer>();
  #workingBytes = 0;
  #keptBytes = 0;

  constructor(limits: Readonly<Record<keyof typeof answerLimits, number>> = answerLimits) {
    this.#limits = limits;
  }

  /** Bytes of the packages in work, and of the answers that are kept. */
  get bytes(): { readonly working: number; readonly kept: number } {
    return { working: this.#workingBytes, kept: this.#keptBytes };
  }

  /**
   * The answer to the package of this key, which has so many bytes. Calls `make` only if the package is new.
   * @throws {PosternError} `unavailable` when too many packages are in work
   */
  async of(key: string, bytes: number, make: () => Promise<Buffer>): Promise<Buffer> {
    const known = this.#kept.get(key) ?? this.#working.get(key);
    if (known) return await known;
    const { working, workingBytes } = this.#limits;
    if (this.#working.size >= working || this.#workingBytes + bytes > workingBytes)
      throw new PosternError('unavailable', 'too many packages are in work; try again later');
    const making = make();
    this.#working.set(key, making);
    this.#workingBytes += bytes;
    try {
      const answer = await making;
      this.#keep(key, answer);
      return answer;
    } finally {
      this.#working.delete(key);
      this.#workingBytes -= bytes;
    }
  }

  #keep(key: string, answer: Buffer): void {
    this.#kept.set(key, ownBytes(answer));
    this.#keptBytes += answer.length;
    for (const [oldest, { length }] of this.#kept) {
      if (this.#kept.size <= this.#limits.kept && this.#keptBytes <= this.#limits.keptBytes) break;
      this.#kept.delete(oldest);
      this.#keptBytes -= length;
    }
  }
}
