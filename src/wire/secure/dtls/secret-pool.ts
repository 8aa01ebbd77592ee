/** Slots of one piece of memory. */
const perPiece = 256;

/**
 * Memory for many small secrets of at most the same length, outside of the heap. A Buffer for each would take several times as much
 * as the secret. What is given back is overwritten.
 */
export class SecretPool {
  readonly #slotBytes: number;
  readonly #pieces: Buffer[] = [];
  readonly #free: number[] = [];

  /** @param slotBytes most bytes of a secret */
  constructor(slotBytes: number) {
    this.#slotBytes = slotBytes;
  }

  /** Keeps a copy of the bytes of all parts. Returns the number of its slot. */
  keep(...parts: readonly Uint8Array[]): number {
    if (this.#free.length === 0) this.#grow();
    const slot = this.#free.pop()!;
    let at = 0;
    for (const part of parts) {
      this.view(slot, at, part.length).set(part);
      at += part.length;
    }
    return slot;
  }

  /** A view of bytes of a slot. It must not be kept: the slot may get another secret. */
  view(slot: number, from: number, length: number): Buffer {
    if (from + length > this.#slotBytes) throw new RangeError('a secret is too long for its slot');
    const start = (slot % perPiece) * this.#slotBytes + from;
    return this.#pieces[Math.floor(slot / perPiece)]!.subarray(start, start + length);
  }

  /** Overwrites a secret, and gives its slot back. */
  release(slot: number): void {
    this.view(slot, 0, this.#slotBytes).fill(0);
    this.#free.push(slot);
  }

  #grow(): void {
    const first = this.#pieces.length * perPiece;
    this.#pieces.push(Buffer.alloc(perPiece * this.#slotBytes));
    for (let slot = first + perPiece - 1; slot >= first; slot--) this.#free.push(slot);
  }
}
