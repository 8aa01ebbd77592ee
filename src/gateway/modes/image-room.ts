import type { DiskRoom } from '../../base/disk-room.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { ImageState } from '../../mo/gw-image-inventory.ts';
import type { ImageFiles } from '../store/image-files.ts';
import type { ImageRecord, Images } from '../store/images.ts';

export interface ImageRoomParts {
  readonly images: Images;
  readonly files: ImageFiles;
  readonly disk: DiskRoom;
  /** Maximum number of bytes of all images together. */
  readonly quota: number;
  /** Maximum number of images that have a record. */
  readonly count: number;
  readonly events: Events;
}

/**
 * The room for images: a quota, and what the disk has beyond the room that is kept for the state. Room is reserved before
 * bytes are written. When it is short, the downloaded image that was used longest ago is evicted first. A pushed image is
 * never evicted, because it cannot be downloaded again.
 */
export class ImageRoom {
  readonly #parts: ImageRoomParts;
  /** Size of files that are being received, and how much of each is on the disk. Bounded by downloads and by pushes of a package. */
  readonly #reserved = new Map<string, { readonly bytes: number; readonly received: number }>();

  constructor(parts: ImageRoomParts) {
    this.#parts = parts;
  }

  /**
   * @param others names of images that come before this one and have no record yet
   * @throws {PosternError} `full` when the image would be one too many
   */
  admit(name: string, others: readonly string[]): void {
    const { images, count } = this.#parts;
    if (images.get(name)) return;
    const known = new Set([...images.values().map((image) => image.name), ...others]);
    known.delete(name);
    if (known.size >= count)
      throw new PosternError('full', `the limit of ${count} images is reached; delete one`);
  }

  /**
   * Reserves room for a file, and evicts downloaded images as needed. Nothing is evicted when that would not be enough.
   * @param owner what the room is for; a second call replaces the first
   * @param name the image whose stored version stays, since the file is to replace it
   * @param bytes size of the file
   * @param received bytes of it that are on the disk
   * @throws {PosternError} `full` when there is not enough room, `tooLarge` when the file is larger than the quota
   */
  reserve(owner: string, name: string, bytes: number, received: number): void {
    const { files, disk, quota } = this.#parts;
    if (bytes > quota) throw new PosternError('tooLarge', `all images together may take ${quota} bytes`);
    const rest = Math.max(0, bytes - received);
    const isMore = bytes > (this.#reserved.get(owner)?.bytes ?? -1);
    const excess = isMore ? files.bytes + this.#outstanding(owner) + rest - quota : 0;
    const missing = rest - Math.max(0, disk.left(files.directory, diskOwner(owner)));
    this.#evict(name, Math.max(excess, missing));
    disk.reserve(diskOwner(owner), files.directory, rest);
    this.#reserved.set(owner, { bytes, received });
  }

  release(owner: string): void {
    this.#reserved.delete(owner);
    this.#parts.disk.release(diskOwner(owner));
  }

  /** Bytes that are reserved for other files and not yet on the disk. */
  #outstanding(owner: string): number {
    const others = [...this.#reserved].filter(([each]) => each !== owner);
    return others.reduce((sum, [, { bytes, received }]) => sum + Math.max(0, bytes - received), 0);
  }

  #evict(name: string, bytes: number): void {
    if (bytes <= 0) return;
    const { images, files, events } = this.#parts;
    const evictable = images
      .values()
      .filter((image) => image.name !== name && image.hash !== undefined && !image.inline)
      .toSorted((a, b) => a.used - b.used);
    if (evictable.reduce((sum, { size = 0 }) => sum + size, 0) < bytes)
      throw new PosternError(
        'full',
        `${bytes} bytes too few are left for images; remove images, also an earlier version of this one`,
      );
    let freed = 0;
    for (const image of evictable) {
      if (freed >= bytes) return;
      const { hash = '', size = 0 } = image;
      images.put(withoutBytes(image, ImageState.Evicted));
      files.drop(image.name, hash);
      freed += size;
      events.emit('image.evicted', { image: image.name, bytes: size });
    }
  }
}

/** The record of an image whose bytes are gone. A download that is under way goes on. */
export function withoutBytes({ hash: _, ...record }: ImageRecord, state: number): ImageRecord {
  return { ...record, inline: false, state: record.state === ImageState.Coming ? record.state : state };
}

const diskOwner = (owner: string): string => `image ${owner}`;
