import { randomBytes } from 'node:crypto';

/** The only source of randomness. Tests replace it by a seeded one. */
export interface Entropy {
  /** This many random bytes. */
  bytes(length: number): Uint8Array;
  /** A number that is uniformly distributed in [0, 1). */
  uniform(): number;
}

/** The random generator of the operating system. */
export const systemEntropy: Entropy = {
  bytes: (length) => randomBytes(length),
  uniform: () => randomBytes(4).readUInt32BE() / 2 ** 32,
};

/** Deterministic entropy for tests and simulations (xorshift32). It must not be used for secrets. */
export function seededEntropy(seed: number): Entropy {
  let state = seed | 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  return {
    bytes: (length) => Uint8Array.from({ length }, () => next() & 0xff),
    uniform: () => next() / 2 ** 32,
  };
}
