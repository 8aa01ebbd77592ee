import type { Standing } from '../../base/admission.ts';

/**
 * Counts what is in work for peers, by their standing. Proven peers have the whole limit for themselves. Known addresses have
 * half as much and so have strangers, each apart from the others. One known address has an eighth, and one address of a
 * stranger a 32nd part.
 */
export class Workload {
  readonly #most: readonly [number, number, number];
  /** Of one address. */
  readonly #perAddress: readonly [number, number, number];
  readonly #counts: [number, number, number] = [0, 0, 0];
  /** By standing, of addresses with something in work. */
  readonly #addresses = [
    new Map<string, number>(),
    new Map<string, number>(),
    new Map<string, number>(),
  ] as const;

  constructor(limit: number) {
    this.#most = [limit, Math.ceil(limit / 2), Math.ceil(limit / 2)];
    this.#perAddress = [limit, Math.ceil(limit / 8), Math.ceil(limit / 32)];
  }

  get size(): number {
    return this.#counts[0] + this.#counts[1] + this.#counts[2];
  }

  hasRoom(standing: Standing, address: string): boolean {
    if (this.#counts[standing] >= this.#most[standing]) return false;
    return (this.#addresses[standing].get(address) ?? 0) < this.#perAddress[standing];
  }

  /** Counts one piece of work. Returns what ends it; it is called once. */
  begin(standing: Standing, address: string): () => void {
    const addresses = this.#addresses[standing];
    this.#counts[standing]++;
    addresses.set(address, (addresses.get(address) ?? 0) + 1);
    return () => {
      this.#counts[standing]--;
      const left = (addresses.get(address) ?? 1) - 1;
      if (left > 0) addresses.set(address, left);
      else addresses.delete(address);
    };
  }
}
