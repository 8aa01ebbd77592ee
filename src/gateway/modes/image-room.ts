import { credit, type DiskRoom } from '../../base/disk-room.ts';
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

/** A file that needs room. */
export interface RoomNeed {
  /** The image that the file is to become. */
  readonly name: string;
  /** Size of the file. A download server only announces it. */
  readonly bytes: number;
  /** Bytes of it that are on the disk. */
  readonly received: number;
  /** Bytes of it that are written next. */
  readonly next: number;
  /** Whether the stored version of this image may be deleted for the file. */
  readonly dropsEarlier: boolean;
}

/**
 * The room for images: a quota, and what the disk has beyond the room that is kept for the state. Room is reserved before
 * bytes are written. When it is short, the downloaded image that was used longest ago is evicted first, as bytes come that
 * need its room. A size that a server announces evicts nothing. A pushed image is evicted only for its own successor, and
 * an earlier version only if the server allowed that: it is the last one to go.
 */
export class ImageRoom {
  readonly #parts: ImageRoomParts;
  /** Files that are being received. Bounded by downloads and by pushes of a package. */
  readonly #reserved = new Map<string, { readonly need: RoomNeed; readonly counted: number }>();

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
   * Reserves room for a download: evicts what the next bytes need. Nothing is evicted when the whole file could not be
   * stored.
   * @param owner what the room is for; a second call replaces the first
   * @throws {PosternError} `full` when there is not enough room, `tooLarge` when the file is larger than the quota
   */
  reserve(owner: string, need: RoomNeed): void {
    const { disk, files } = this.#parts;
    const spare = this.#spare(owner);
    const evictable = this.#check(need, spare);
    const counted = credit(need.bytes, need.received, need.next);
    if (need.next > 0) this.#evict(evictable, need.next - spare);
    disk.reserve(diskOwner(owner), files.directory, need.next, counted);
    this.#reserved.set(owner, { need, counted });
  }

  /**
   * Promises room for a file that is in memory, and evicts nothing yet. `make` makes the room.
   * @throws {PosternError} as `reserve`
   */
  promise(owner: string, { bytes, ...image }: Pick<RoomNeed, 'name' | 'bytes' | 'dropsEarlier'>): void {
    const { disk, files } = this.#parts;
    const need = { ...image, bytes, received: 0, next: bytes };
    this.#check(need, this.#spare(owner));
    disk.reserve(diskOwner(owner), files.directory, 0, bytes);
    this.#reserved.set(owner, { need, counted: bytes });
  }

  /**
   * Makes the room that was promised.
   * @throws {PosternError} as `reserve`
   */
  make(owner: string): void {
    const { need } = this.#reserved.get(owner) ?? {};
    if (need) this.reserve(owner, need);
  }

  release(owner: string): void {
    this.#reserved.delete(owner);
    this.#parts.disk.release(diskOwner(owner));
  }

  /** Whether a small file fits beside the images, and nothing has to give way. */
  fits(bytes: number): boolean {
    return bytes <= this.#spare('');
  }

  /** Bytes that may be written before something has to give way. Negative when there are more bytes than there may be. */
  #spare(owner: string): number {
    const { files, disk, quota } = this.#parts;
    const others = [...this.#reserved].filter(([each]) => each !== owner);
    const kept = others.reduce((sum, [, { counted }]) => sum + counted, 0);
    return Math.min(quota - files.bytes - kept, Math.max(0, disk.left(files.directory, diskOwner(owner))));
  }

  /** Returns the images that may give way to a file, in their order, when that is enough for the whole file. */
  #check({ name, bytes, received, dropsEarlier }: RoomNeed, spare: number): readonly ImageRecord[] {
    const { images, quota } = this.#parts;
    if (bytes > quota) throw new PosternError('tooLarge', `all images together may take ${quota} bytes`);
    const rest = Math.max(0, bytes - received);
    const stored = images.values().filter(({ hash }) => hash !== undefined);
    const others = stored.filter((image) => image.name !== name && !image.inline);
    const earlier = stored.filter((image) => image.name === name);
    const evictable = others.toSorted((a, b) => a.used - b.used).concat(dropsEarlier ? earlier : []);
    const missing = rest === 0 ? 0 : rest - spare - sizeOf(evictable);
    if (missing <= 0) return evictable;
    const isEarlierTooMuch = !dropsEarlier && missing <= sizeOf(earlier);
    throw new PosternError(
      'full',
      isEarlierTooMuch
        ? `${missing} bytes too few are left beside the earlier version; set DropEarlier of this image, or remove the earlier version first`
        : `${missing} bytes too few are left for images; remove images, or give them more room`,
    );
  }

  #evict(evictable: readonly ImageRecord[], bytes: number): void {
    const { images, files, events } = this.#parts;
    let freed = 0;
    for (const image of evictable) {
      if (freed >= bytes) return;
      const { name, hash = '', size = 0 } = image;
      images.put(withoutBytes(image, ImageState.Evicted));
      files.drop(name, hash);
      freed += size;
      events.emit('image.evicted', { image: name, bytes: size });
    }
  }
}

const sizeOf = (images: readonly ImageRecord[]): number =>
  images.reduce((sum, { size = 0 }) => sum + size, 0);

/** The record of an image whose bytes are gone. A download that is under way goes on. */
export function withoutBytes({ hash: _, ...record }: ImageRecord, state: number): ImageRecord {
  return { ...record, inline: false, state: record.state === ImageState.Coming ? record.state : state };
}

const diskOwner = (owner: string): string => `image ${owner}`;
