import { randomBytes } from 'node:crypto';

/** The only source of randomness. Tests replace it by a seeded one. */
export interface Entropy {
  /** This many random bytes. */
  bytes(length: number): Uint8Array;
  /** A number that is uniformly distributed in [0, 1). */
  uniform(): number;
}

/** Bytes that are taken from the operating system at a time. A call for a few bytes costs as much as one for all. */
const poolBytes = 1024;
let pool = Buffer.alloc(0);

function take(length: number): Buffer {
  if (length > poolBytes / 8) return randomBytes(length);
  if (pool.length < length) pool = randomBytes(poolBytes);
  // Not from Node's shared memory: a nonce that is kept would keep a whole piece of it.
  const taken = Buffer.allocUnsafeSlow(length);
  pool.copy(taken, 0, 0, length);
  // What was given away may become a secret, so it does not stay here.
  pool.fill(0, 0, length);
  pool = pool.subarray(length);
  return taken;
}

/** The random generator of the operating system. */
export const systemEntropy: Entropy = {
  bytes: take,
  uniform: () => take(4).readUInt32BE() / 2 ** 32,
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
