import { Buffer } from 'node:buffer';
import { ownBytes } from '../../base/own-bytes.ts';
import { copyOctets } from './codec.ts';

/** Bytes of one cell. Most replies are that short. */
const cellBytes = 64;
/** Cells at the start. */
const firstCells = 64;

/** Where a reply is kept: the number of its cell, or a buffer of its own. */
export type KeptReply = number | Buffer;

/**
 * Memory for the replies that are kept. Node cuts short Buffers from pieces of 64 KB, and a Buffer that is kept keeps its whole
 * piece: a few bytes of replies would take hundreds of megabytes. So a reply is copied into a cell here, and a long one into
 * memory of its own. There are as many cells as replies were kept at one time.
 */
export class KeptReplies {
  #cells = Buffer.alloc(0);
  readonly #free: number[] = [];

  /** Bytes of all cells, used or not. */
  get cellBytes(): number {
    return this.#cells.length;
  }

  keep(reply: Buffer): KeptReply {
    if (reply.length > cellBytes) return ownBytes(reply);
    if (this.#free.length === 0) this.#grow();
    const cell = this.#free.pop()!;
    copyOctets(reply, this.#cells, cell * cellBytes);
    return cell;
  }

  /** A copy of a reply, which may be sent. */
  read(kept: KeptReply, length: number): Buffer {
    if (typeof kept !== 'number') return kept;
    const at = kept * cellBytes;
    return Buffer.from(this.#cells.subarray(at, at + length));
  }

  /** Makes the cell of a reply free. */
  drop(kept: KeptReply): void {
    if (typeof kept === 'number') this.#free.push(kept);
  }

  #grow(): void {
    const before = this.#cells;
    this.#cells = Buffer.allocUnsafeSlow(Math.max(firstCells * cellBytes, 2 * before.length));
    this.#cells.set(before);
    const from = before.length / cellBytes;
    for (let cell = this.#cells.length / cellBytes - 1; cell >= from; cell--) this.#free.push(cell);
  }
}
