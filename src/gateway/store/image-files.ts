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

/** Bytes that are read at one time, and pieces that are kept: devices that load together want the same ones. */
const piece = { bytes: 64 * 1024, kept: 32 } as const;

/**
 * The bytes of images, a file each: `.part` while it comes, and renamed when it was found right. Files are opened once
 * and read at any place, a piece at a time, so what serves a thousand devices holds two megabytes.
 */
export class ImageFiles implements Disposable {
  readonly #directory: string;
  readonly #isTemporary: boolean;
  readonly #open = new Map<string, number>();
  readonly #pieces = new BoundedMap<string, Buffer>(piece.kept);

  /**
   * Without a directory the files last as long as the process.
   * @throws {PosternError} `configuration`
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

  /** Bytes that came so far. */
  received(name: string): number {
    return sizeOf(this.path(name) + partSuffix) ?? 0;
  }

  has(name: string): boolean {
    return sizeOf(this.path(name)) !== undefined;
  }

  /** Bytes of all files, those that are coming included. */
  get bytes(): number {
    return readdirSync(this.#directory).reduce(
      (sum, file) => sum + (sizeOf(join(this.#directory, file)) ?? 0),
      0,
    );
  }

  /**
   * Writes to the end of what came, or in place of it.
   * @throws {PosternError} `full` when the flash is
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
        throw new PosternError('full', 'no room for images on the flash', { cause });
      throw new PosternError('internal', `image ${name} cannot be written: ${code}`, { cause });
    }
  }

  /** SHA-256 of what came, read back from where it was written, in hexadecimal. */
  async hashPart(name: string): Promise<string> {
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(this.path(name) + partSuffix)) hash.update(chunk as Buffer);
    return hash.digest('hex');
  }

  /** What came is whole and right: from now on it is served, and a power cut does not take it away. */
  accept(name: string): void {
    const part = this.path(name) + partSuffix;
    syncFile(part);
    this.#close(name);
    renameSync(part, this.path(name));
    syncFolder(this.#directory);
  }

  dropPart(name: string): void {
    rmSync(this.path(name) + partSuffix, { force: true });
  }

  drop(name: string): void {
    this.#close(name);
    rmSync(this.path(name), { force: true });
  }

  /** @throws {PosternError} `notFound` */
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
        throw new PosternError('notFound', `image ${name} is not kept`, { cause });
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

  /** Where an image lies, or will. Names come from a server: they are no paths. */
  path(name: string): string {
    return join(this.#directory, hashedName(name));
  }
}

const sizeOf = (path: string): number | undefined => statSync(path, { throwIfNoEntry: false })?.size;
