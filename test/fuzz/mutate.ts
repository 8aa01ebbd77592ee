/** A seeded source of numbers (xorshift32). The same seed gives the same numbers. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0 || 1;
  }

  /** A whole number from 0 to below `bound`. */
  roll(bound: number): number {
    let state = this.#state;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    this.#state = state;
    return (state >>> 0) % bound;
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
