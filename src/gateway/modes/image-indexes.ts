import { PosternError } from '../../base/errors.ts';
import type { ServedImage } from '../southbound/image-resource.ts';
import { indexSize } from '../store/block-index.ts';
import type { ImageFiles } from '../store/image-files.ts';
import type { ImageRoom } from './image-room.ts';

/** Bytes of the largest image that has an index. No bundle is larger. */
const largest = 512 * 1024 * 1024;

/**
 * Indexes of the blocks of images, for child gateways: one that updates itself by an image gets only the blocks that it has not. An
 * index is made when somebody asks first, one at a time, and is kept beside its image. So nobody can have it made again and again.
 */
export class ImageIndexes {
  readonly #files: ImageFiles;
  readonly #room: Pick<ImageRoom, 'fits'>;
  #making: { readonly hash: string; readonly made: Promise<void> } | undefined;

  constructor(files: ImageFiles, room: Pick<ImageRoom, 'fits'>) {
    this.#files = files;
    this.#room = room;
  }

  /**
   * The index of a stored image. Undefined when there is no room for it: nothing gives way to an index.
   * @param hash SHA-256 of the image in hexadecimal
   * @param size bytes of the image
   * @throws {PosternError} `unavailable` while the index of another image is being made
   */
  async of(name: string, hash: string, size: number): Promise<ServedImage | undefined> {
    if (size === 0 || size > largest) return undefined;
    if (!this.#files.index(name, hash)) {
      if (this.#making && this.#making.hash !== hash)
        throw new PosternError('unavailable', 'the index of another image is being made');
      if (!this.#making && !this.#room.fits(indexSize(size))) return undefined;
      this.#making ??= { hash, made: this.#make(name, hash, size) };
      await this.#making.made;
    }
    const bytes = this.#files.index(name, hash);
    return bytes && { size: bytes.length, hash, read: (from, length) => bytes.subarray(from, from + length) };
  }

  /** Resolves when no index is being made. */
  async settled(): Promise<void> {
    await this.#making?.made.catch(() => {});
  }

  async #make(name: string, hash: string, size: number): Promise<void> {
    try {
      await this.#files.makeIndex(name, hash, size);
    } finally {
      this.#making = undefined;
    }
  }
}
