import { statfsSync, statSync } from 'node:fs';
import { PosternError } from './errors.ts';

/**
 * Room for large files, such as images. Part of each file system stays free for the state. The room for a file is reserved
 * before the file is written, so files that grow at the same time do not take the same room. A size that somebody only
 * announced keeps no room from others: `credit` says how much of it counts.
 */
export class DiskRoom {
  /** Bytes of each file system that stay free. */
  readonly #keepFree: number;
  /** Room that is reserved and not yet written, by owner. Bounded by the number of files that are written at a time. */
  readonly #reserved = new Map<string, { readonly device: number; readonly bytes: number }>();

  constructor(keepFree: number) {
    this.#keepFree = keepFree;
  }

  /**
   * Bytes that may still be written to a folder, without the reservations of others. Negative when less is free than must
   * stay free. Infinity for a file system without a size, such as an unlimited tmpfs.
   * @param owner whose own reservation is not subtracted
   */
  left(folder: string, owner: string): number {
    const { bavail, bsize, blocks } = statfsSync(folder);
    if (blocks === 0) return Number.POSITIVE_INFINITY;
    const { dev } = statSync(folder);
    const others = [...this.#reserved].filter(([each, { device }]) => each !== owner && device === dev);
    return others.reduce((left, [, { bytes }]) => left - bytes, bavail * bsize - this.#keepFree);
  }

  /**
   * Reserves room for `bytes` more bytes, in place of an earlier reservation of this owner. To be called again while the
   * file grows: what was written is no longer free.
   * @param counted bytes that are kept from others
   * @throws {PosternError} `full` when there is not enough room
   */
  reserve(owner: string, folder: string, bytes: number, counted = bytes): void {
    const left = Math.max(0, this.left(folder, owner));
    if (bytes > left)
      throw new PosternError(
        'full',
        `no room on the disk for ${bytes} bytes: ${left} may be used, and ${this.#keepFree} stay free for the state`,
      );
    this.#reserved.set(owner, { device: statSync(folder).dev, bytes: counted });
  }

  release(owner: string): void {
    this.#reserved.delete(owner);
  }
}

/**
 * Bytes of a file that are kept from others before they come: as many as came already. So a server that announces a size
 * and sends little takes no room from anybody, and a file that is half there finds room for its other half.
 * @param bytes size of the file as announced
 * @param received bytes of it that are on the disk
 * @param next bytes of it that are written next
 */
export const credit = (bytes: number, received: number, next: number): number =>
  Math.max(0, Math.min(bytes - received, received + next));

/** Whether an error of the file system says that the disk, or the user's share of it, is full. */
export const isDiskFull = (thrown: unknown): boolean =>
  ['ENOSPC', 'EDQUOT'].includes((thrown as NodeJS.ErrnoException | undefined)?.code ?? '');
