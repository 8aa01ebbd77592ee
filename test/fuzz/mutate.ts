/**
 * A seeded source of numbers (sfc32, with 128 bits of state). The same seed and stream give the same numbers, and different
 * streams of one seed have nothing in common.
 */
export class Dice {
  #a: number;
  #b: number;
  #c = 0;
  #counter = 1;

  constructor(seed: number, stream = 0) {
    this.#a = seed | 0;
    this.#b = stream | 0;
    // The first numbers of close seeds are alike.
    for (let round = 0; round < 15; round++) this.roll(1);
  }

  /** A whole number from 0 to below `bound`. */
  roll(bound: number): number {
    const result = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) | 0;
    return (result >>> 0) % bound;
  }
}

/** Bytes that codecs treat specially: limits of numbers, ends of texts, starts of tags and of elements. */
const interesting = [
  0, 1, 2, 3, 4, 0x3c, 0x3e, 0x26, 0x40, 0x43, 0x44, 0x7f, 0x80, 0x83, 0x9f, 0xbf, 0xc3, 0xc4, 0xdb, 0xff,
];

/**
 * Changes a copy of `input` one to four times: flips a bit, sets, cuts, repeats, inserts or removes bytes, or copies a piece of
 * `other` into it. The copy is made in `scratch`, and the result is a view of `scratch`.
 */
export function mutate(dice: Dice, input: Uint8Array, other: Uint8Array, scratch: Buffer): Buffer {
  let length = Math.min(input.length, scratch.length);
  scratch.set(input.subarray(0, length));
  for (let times = 1 + dice.roll(4); times > 0 && length > 0; times--) {
    const at = dice.roll(length);
    switch (dice.roll(8)) {
      case 0:
        scratch[at]! ^= 1 << dice.roll(8);
        break;
      case 1:
        scratch[at] = dice.roll(256);
        break;
      case 2:
        scratch[at] = interesting[dice.roll(interesting.length)]!;
        break;
      case 3:
        length = at;
        break;
      case 4: {
        // Repeats a piece at another place.
        const size = Math.min(1 + dice.roll(32), length - at);
        scratch.copyWithin(dice.roll(length), at, at + size);
        break;
      }
      case 5: {
        const size = Math.min(1 + dice.roll(16), scratch.length - length);
        scratch.copyWithin(at + size, at, length);
        for (let fill = 0; fill < size; fill++) scratch[at + fill] = dice.roll(256);
        length += size;
        break;
      }
      case 6: {
        const size = Math.min(1 + dice.roll(16), length - at);
        scratch.copyWithin(at, at + size, length);
        length -= size;
        break;
      }
      default: {
        const from = dice.roll(other.length);
        const size = Math.min(1 + dice.roll(64), other.length - from, scratch.length - at);
        scratch.set(other.subarray(from, from + size), at);
        length = Math.max(length, at + size);
      }
    }
  }
  return scratch.subarray(0, length);
}
