import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BoundedMap } from '../../base/bounded-map.ts';
import { isDiskFull } from '../../base/disk-room.ts';
import { syncFolder, syncLargeFile, writeWithoutBlocking } from '../../base/durable.ts';
import { PosternError } from '../../base/errors.ts';
import { fileDigest } from '../../base/file-digest.ts';
import { hashedName } from '../../base/hashed-name.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { indexSuffix, makeIndex } from './block-index.ts';
import { PartFile } from './part-file.ts';

/** Names of files that this module makes, or made before: of a whole image, of its index, or of a part. */
const ownName = /^[0-9a-f]{16}(-[0-9a-f]{16}(\.blocks(\.new)?)?|(\.[0-9a-f]{16})?\.part)?$/;

/**
 * Read cache: size of a piece in bytes, and number of pieces kept in memory. The cache helps because devices that load
 * at the same time need the same pieces.
 */
const piece = { bytes: 64 * 1024, kept: 32 } as const;

/**
 * The bytes of images. A file is a `PartFile` while it is received. After its verification it gets a name that holds its
 * digest. So a new version stands beside the old one until the record of the image changes from one to the other. Files are
 * opened once and read at any position through the read cache, so the memory in use stays at 2 MiB for any number of
 * devices.
 */
export class ImageFiles implements Disposable {
  readonly directory: string;
  readonly #isTemporary: boolean;
  /** Open files, by hash and name. */
  readonly #open = new Map<string, number>();
  readonly #pieces = new BoundedMap<string, Buffer>(piece.kept);
  /** The index that was read last, by its path. An index has less than 1 MiB. */
  #index: readonly [path: string, bytes: Buffer] | undefined;

  /**
   * @param directory folder of the files; when undefined, a temporary folder that is deleted on dispose
   * @throws {PosternError} `configuration` when the folder cannot be created
   */
  constructor(directory: string | undefined) {
    this.#isTemporary = directory === undefined;
    try {
      this.directory = directory ?? mkdtempSync(join(tmpdir(), 'postern-images-'));
      makeFolder(this.directory, { mode: 0o700 });
    } catch (cause) {
      throw new PosternError('configuration', `images.directory: ${directory} cannot be used`, { cause });
    }
  }

  [Symbol.dispose](): void {
    for (const file of this.#open.values()) closeSync(file);
    this.#open.clear();
    if (this.#isTemporary) rmSync(this.directory, { recursive: true, force: true });
  }

  /** Bytes of all files, incomplete ones included. */
  get bytes(): number {
    return readdirSync(this.directory).reduce(
      (sum, file) => sum + (sizeOf(join(this.directory, file)) ?? 0),
      0,
    );
  }

  /** The file of an image while it is received. */
  part(name: string): PartFile {
    return new PartFile(this.#base(name));
  }

  /** Size of a stored image in bytes; undefined when it is not there. */
  size(name: string, hash: string): number | undefined {
    return sizeOf(this.path(name, hash));
  }

  /** The index of the blocks of a stored image; undefined when it was not made yet. */
  index(name: string, hash: string): Buffer | undefined {
    const path = this.path(name, hash) + indexSuffix;
    if (this.#index?.[0] === path) return this.#index[1];
    if (!existsSync(path)) return undefined;
    this.#index = [path, readFileSync(path)];
    return this.#index[1];
  }

  /** Makes the index of a stored image of `size` bytes. @throws {Error} of the file system */
  async makeIndex(name: string, hash: string, size: number): Promise<void> {
    const path = this.path(name, hash);
    const index = path + indexSuffix;
    try {
      await writeWithoutBlocking(index, await makeIndex(path, hash, size));
    } finally {
      rmSync(`${index}.new`, { force: true });
      // The image has gone meanwhile.
      if (!existsSync(path)) rmSync(index, { force: true });
    }
  }

  /** As `fileDigest`. */
  async hash(path: string): Promise<string> {
    return await fileDigest(path);
  }

  /** Gives a verified part its final name. The image survives a power cut when this resolves. */
  async accept(name: string, hash: string, part: string): Promise<void> {
    await syncLargeFile(part);
    this.#close(name, hash);
    renameSync(part, this.#newPath(name, hash));
    await syncLargeFile(this.directory);
  }

  /**
   * Stores a small image at once. It survives a power cut when this returns.
   * @throws {PosternError} `full` when the disk is full, `internal` when the file cannot be written otherwise
   */
  put(name: string, hash: string, data: Uint8Array): void {
    const path = this.part(name).path('', undefined);
    try {
      const file = openSync(path, 'w', 0o600);
      try {
        for (let at = 0; at < data.length; ) at += writeSync(file, data, at);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      this.#close(name, hash);
      renameSync(path, this.#newPath(name, hash));
      syncFolder(this.directory);
    } catch (cause) {
      rmSync(path, { force: true });
      if (isDiskFull(cause)) throw new PosternError('full', 'the disk is full', { cause });
      throw new PosternError('internal', `image ${name} cannot be written: ${String(cause)}`, { cause });
    }
  }

  /** Deletes a verified image that did not become the stored one. */
  dropNew(name: string, hash: string): void {
    rmSync(this.#newPath(name, hash), { force: true });
  }

  /**
   * Deletes a stored image, if it is there.
   * @param hash as in the record of the image
   */
  drop(name: string, hash: string): void {
    this.#close(name, hash);
    const path = this.path(name, hash);
    for (const file of [path, path + indexSuffix]) rmSync(file, { force: true });
    this.#index = undefined;
  }

  /**
   * Deletes what no record leads to: left by a power cut, or by a record that could not be stored. Files of other names
   * are left alone.
   * @param stored images that stay, by name
   * @param coming names of images whose parts stay
   */
  sweep(stored: ReadonlyMap<string, string>, coming: readonly string[]): void {
    const paths = [...stored].map(([name, hash]) => this.path(name, hash));
    const kept = new Set(paths.flatMap((path) => [path, path + indexSuffix]));
    const parts = coming.map((name) => `${this.#base(name)}.`);
    for (const file of readdirSync(this.directory)) {
      const path = join(this.directory, file);
      if (ownName.test(file) && !kept.has(path) && !parts.some((part) => path.startsWith(part)))
        rmSync(path, { force: true });
    }
  }

  /**
   * Reads up to `length` bytes at position `from`. Returns fewer bytes at the end of the file.
   * @throws {PosternError} `notFound` when the image is not there
   */
  read(name: string, hash: string, from: number, length: number): Uint8Array {
    const at = from % piece.bytes;
    if (at + length > piece.bytes) return this.#readFile(name, hash, from, length);
    const start = from - at;
    const key = `${hash} ${start}`;
    let found = this.#pieces.get(key);
    if (!found) {
      found = this.#readFile(name, hash, start, piece.bytes);
      this.#pieces.set(key, found);
    }
    return found.subarray(at, at + length);
  }

  #readFile(name: string, hash: string, from: number, length: number): Buffer {
    const key = `${hash} ${name}`;
    let file = this.#open.get(key);
    if (file === undefined) {
      try {
        file = openSync(this.path(name, hash), 'r');
      } catch (cause) {
        throw new PosternError('notFound', `there is no image ${name}`, { cause });
      }
      this.#open.set(key, file);
    }
    const block = Buffer.allocUnsafe(length);
    return block.subarray(0, readSync(file, block, 0, length, from));
  }

  #close(name: string, hash: string): void {
    const file = this.#open.get(`${hash} ${name}`);
    if (file !== undefined) closeSync(file);
    this.#open.delete(`${hash} ${name}`);
    for (const key of [...this.#pieces.keys()]) if (key.startsWith(`${hash} `)) this.#pieces.delete(key);
  }

  /** Path of a stored image, present or not. Version 0.1.0 stored it without the digest in its name. */
  path(name: string, hash: string): string {
    const path = this.#newPath(name, hash);
    return !existsSync(path) && existsSync(this.#base(name)) ? this.#base(name) : path;
  }

  #newPath(name: string, hash: string): string {
    return `${this.#base(name)}-${hash.slice(0, 16)}`;
  }

  /** What the names of all files of an image begin with: a hash, because a server chooses the image name. */
  #base(name: string): string {
    return join(this.directory, hashedName(name));
  }
}

const sizeOf = (path: string): number | undefined => statSync(path, { throwIfNoEntry: false })?.size;
