import { seededEntropy } from '../../../src/base/entropy.ts';

/** Throws that a seed decides: the same seed gives the same throws. */
export class Dice {
  readonly #uniform: () => number;

  constructor(seed: number) {
    // Neighbouring seeds begin alike; so they are spread.
    const spread = Math.imul((seed ^ (seed >>> 16)) + 0x9e37, 0x85ebca6b);
    const { uniform } = seededEntropy(spread ^ (spread >>> 13));
    this.#uniform = uniform;
    uniform();
  }

  /** A whole number from 0 to `end - 1`. */
  below(end: number): number {
    return Math.floor(this.#uniform() * end);
  }

  /** A whole number from `least` to `most`. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }

  /** Whether something happens that happens so often, from 0 to 1. */
  chance(often: number): boolean {
    return this.#uniform() < often;
  }

  pick<T>(list: readonly [T, ...T[]]): T {
    return list[this.below(list.length)] ?? list[0];
  }

  shuffled<T>(list: readonly T[]): T[] {
    return list
      .map((each) => [this.#uniform(), each] as const)
      .toSorted(([a], [b]) => a - b)
      .map(([, each]) => each);
  }

  /** A text with characters that XML, UTF-8 and UTF-16 treat in different ways. */
  text(length: number): string {
    const characters = ['a', 'Z', '7', ' ', '<', '&', '>', '"', "'", ']]>', 'é', '漢', '🚪', '\n'] as const;
    let text = '';
    while (text.length < length) text += this.pick(characters);
    return text;
  }

  octets(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }
}
