import { Standing } from '../../base/admission.ts';

/**
 * Counts what is in work for peers, by their standing. Proven peers have the whole limit for themselves. Known addresses have
 * half as much and so have strangers, each apart from the others. One address of a stranger has a 32nd part.
 */
export class Workload {
  readonly #most: readonly [number, number, number];
  readonly #mostPerStranger: number;
  readonly #counts: [number, number, number] = [0, 0, 0];
  readonly #perStranger = new Map<string, number>();

  constructor(limit: number) {
    this.#most = [limit, Math.ceil(limit / 2), Math.ceil(limit / 2)];
    this.#mostPerStranger = Math.ceil(limit / 32);
  }

  get size(): number {
    return this.#counts[0] + this.#counts[1] + this.#counts[2];
  }

  hasRoom(standing: Standing, address: string): boolean {
    if (this.#counts[standing] >= this.#most[standing]) return false;
    return standing !== Standing.Stranger || (this.#perStranger.get(address) ?? 0) < this.#mostPerStranger;
  }

  /** Counts one piece of work. Returns what ends it; it is called once. */
  begin(standing: Standing, address: string): () => void {
    this.#counts[standing]++;
    if (standing !== Standing.Stranger)
      return () => {
        this.#counts[standing]--;
      };
    this.#perStranger.set(address, (this.#perStranger.get(address) ?? 0) + 1);
    return () => {
      this.#counts[standing]--;
      const left = (this.#perStranger.get(address) ?? 1) - 1;
      if (left > 0) this.#perStranger.set(address, left);
      else this.#perStranger.delete(address);
    };
  }
}
