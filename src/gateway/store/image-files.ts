import { createHash } from 'node:crypto';
import {
  closeSync,
  createReadStream,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BoundedMap } from '../../base/bounded-map.ts';
import { syncFile, syncFolder } from '../../base/durable.ts';
import { PosternError } from '../../base/errors.ts';
import { hashedName } from '../../base/hashed-name.ts';

const partSuffix = '.part';

/**
 * Read cache: size of a piece in bytes, and number of pieces kept in memory. The cache helps because devices that load
 * at the same time need the same pieces.
 */
const piece = { bytes: 64 * 1024, kept: 32 } as const;

/**
 * The bytes of images, one file per image. A file has the suffix `.part` while it is received. It gets its final name
 * when it was verified. Files are opened once and read at any position through the read cache, so the memory in use
 * stays at 2 MiB for any number of devices.
 */
export class ImageFiles implements Disposable {
  readonly #directory: string;
  readonly #isTemporary: boolean;
  readonly #open = new Map<string, number>();
  readonly #pieces = new BoundedMap<string, Buffer>(piece.kept);

  /**
   * @param directory folder of the files; when undefined, a temporary folder that is deleted on dispose
   * @throws {PosternError} `configuration` when the folder cannot be created
   */
  constructor(directory: string | undefined) {
    this.#isTemporary = directory === undefined;
    try {
      this.#directory = directory ?? mkdtempSync(join(tmpdir(), 'postern-images-'));
      mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new PosternError('configuration', `images.directory: ${directory} cannot be used`, { cause });
    }
  }

  [Symbol.dispose](): void {
    for (const file of this.#open.values()) closeSync(file);
    this.#open.clear();
    if (this.#isTemporary) rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Bytes of the image received so far (size of the `.part` file). */
  received(name: string): number {
    return sizeOf(this.path(name) + partSuffix) ?? 0;
  }

  /** Whether the verified image is there. */
  has(name: string): boolean {
    return sizeOf(this.path(name)) !== undefined;
  }

  /** Bytes of all files, `.part` files included. */
  get bytes(): number {
    return readdirSync(this.#directory).reduce(
      (sum, file) => sum + (sizeOf(join(this.#directory, file)) ?? 0),
      0,
    );
  }

  /**
   * Appends a chunk to the `.part` file.
   * @param from position of the chunk in the image; 0 starts the file again
   * @throws {PosternError} `full` when the disk is full, `internal` when the file cannot be written otherwise
   */
  append(name: string, chunk: Uint8Array, from: number): void {
    try {
      const file = openSync(this.path(name) + partSuffix, from === 0 ? 'w' : 'a', 0o600);
      try {
        for (let at = 0; at < chunk.length; ) at += writeSync(file, chunk, at);
      } finally {
        closeSync(file);
      }
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === 'ENOSPC' || code === 'EDQUOT')
        throw new PosternError('full', 'the disk has no room for the image', { cause });
      throw new PosternError('internal', `image ${name} cannot be written: ${code}`, { cause });
    }
  }

  /** SHA-256 of the `.part` file in hexadecimal. It is read back from the disk, so write errors are found too. */
  async hashPart(name: string): Promise<string> {
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(this.path(name) + partSuffix)) hash.update(chunk as Buffer);
    return hash.digest('hex');
  }

  /** Gives the verified `.part` file its final name. The image survives a power cut once this returns. */
  accept(name: string): void {
    const part = this.path(name) + partSuffix;
    syncFile(part);
    this.#close(name);
    renameSync(part, this.path(name));
    syncFolder(this.#directory);
  }

  /** Deletes the `.part` file, if any. */
  dropPart(name: string): void {
    rmSync(this.path(name) + partSuffix, { force: true });
  }

  /** Deletes the verified image, if any. */
  drop(name: string): void {
    this.#close(name);
    rmSync(this.path(name), { force: true });
  }

  /**
   * Reads up to `length` bytes at position `from`. Returns fewer bytes at the end of the file.
   * @throws {PosternError} `notFound` when the image is not there
   */
  read(name: string, from: number, length: number): Uint8Array {
    const at = from % piece.bytes;
    if (at + length > piece.bytes) return this.#readFile(name, from, length);
    const start = from - at;
    const key = `${name} ${start}`;
    let found = this.#pieces.get(key);
    if (!found) {
      found = this.#readFile(name, start, piece.bytes);
      this.#pieces.set(key, found);
    }
    return found.subarray(at, at + length);
  }

  #readFile(name: string, from: number, length: number): Buffer {
    let file = this.#open.get(name);
    if (file === undefined) {
      try {
        file = openSync(this.path(name), 'r');
      } catch (cause) {
        throw new PosternError('notFound', `there is no image ${name}`, { cause });
      }
      this.#open.set(name, file);
    }
    const block = Buffer.allocUnsafe(length);
    return block.subarray(0, readSync(file, block, 0, length, from));
  }

  #close(name: string): void {
    const file = this.#open.get(name);
    if (file !== undefined) closeSync(file);
    this.#open.delete(name);
    for (const key of [...this.#pieces.keys()]) if (key.startsWith(`${name} `)) this.#pieces.delete(key);
  }

  /** Path of the image file, present or not. The file name is a hash, because a server chooses the image name. */
  path(name: string): string {
    return join(this.#directory, hashedName(name));
  }
}

const sizeOf = (path: string): number | undefined => statSync(path, { throwIfNoEntry: false })?.size;
