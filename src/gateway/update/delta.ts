import { statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { PosternError } from '../../base/errors.ts';
import { fileDigest } from '../../base/file-digest.ts';
import { readBounded } from '../../base/read-bounded.ts';
import { type FileDownload, failed, keepTrying, leastPace, write } from '../northbound/file-download.ts';
import { type BlockIndex, blockBytes, blockDigest, indexSuffix, readIndex } from '../store/block-index.ts';

export interface DeltaDownload
  extends Pick<
    FileDownload,
    'url' | 'ca' | 'download' | 'part' | 'wrote' | 'brokeOff' | 'retryFor' | 'clock' | 'entropy'
  > {
  /** Largest bundle in bytes. */
  readonly limit: number;
  /** Files of the running version, whose blocks may be blocks of the bundle. */
  readonly sources: readonly string[];
  /**
   * Makes sure that there is room for the bundle.
   * @param received bytes of it that are on the disk
   * @throws {PosternError} `full`, `tooLarge`
   */
  readonly reserve: (bytes: number, received: number) => void;
  /** The blocks that are there are known, so the download begins. `bytes` of `total` are to come. */
  readonly begun: (bytes: number, total: number) => void;
}

/**
 * Largest index in bytes, and bytes that are read from the disk at a time. Ranges with fewer blocks than `gap` from the one to the
 * next are requested as one.
 */
const limits = {
  index: 1024 * 1024,
  gap: 16,
  piece: 16 * blockBytes,
} as const;

/**
 * Downloads the blocks of a bundle that are new, and takes the others from the running version. One range is requested at a time.
 * After a restart, the blocks that came are found again by their digests. Returns the path of the bundle. It has the digest that
 * the index says; its signature is not verified.
 * @throws {PosternError} `notFound` or `forbidden` when the server has no index; `malformed`, `tooLarge` or `conflict` when the
 * bundle cannot be had so; otherwise as `downloadFile`
 */
export const downloadDelta = async (parts: DeltaDownload, signal: AbortSignal): Promise<string> =>
  await keepTrying(parts, new Delta(parts), signal);

class Delta {
  readonly #parts: DeltaDownload;
  readonly #indexUrl: string;
  #index: BlockIndex | undefined;
  /** Numbers of the blocks that are not there. */
  readonly #missing = new Set<number>();
  /** Strong validator of the bundle at the server, from its first range on. */
  #validator: string | undefined;

  constructor(parts: DeltaDownload) {
    this.#parts = parts;
    const url = new URL(parts.url);
    url.pathname += indexSuffix;
    this.#indexUrl = url.href;
  }

  /** Bytes of the bundle that are there. */
  get received(): number {
    if (!this.#index) return 0;
    let left = this.#index.total;
    for (const number of this.#missing) left -= this.#end(number) - this.#start(number);
    return left;
  }

  async attempt(signal: AbortSignal): Promise<string> {
    const { part, reserve, begun } = this.#parts;
    const isFirst = !this.#index;
    this.#index ??= await this.#loadIndex(signal);
    const { total, sha256 } = this.#index;
    const path = part.path(this.#indexUrl, undefined);
    const present = part.received(this.#indexUrl, undefined);
    // Parts of the file are holes.
    reserve(total, (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512);
    await using file = await part.open(this.#indexUrl, undefined, present).catch(failed);
    if (isFirst) {
      await this.#gather(file, path, this.#index, signal);
      begun(total - this.received, total);
    }
    for (const [first, last] of this.#ranges()) await this.#fetch(file, first, last, signal);
    await file.truncate(total).catch(failed);
    if ((await fileDigest(path)) !== sha256)
      throw new PosternError('conflict', 'the blocks do not fit together');
    return path;
  }

  async #loadIndex(signal: AbortSignal): Promise<BlockIndex> {
    const { body } = await this.#download(this.#indexUrl, { from: 0 }, signal);
    return readIndex(await readBounded(body, limits.index, 'an index'), this.#parts.limit);
  }

  async #download(
    url: string,
    range: { readonly from: number; readonly to?: number; readonly total?: number },
    signal: AbortSignal,
  ) {
    const { download, ca, clock } = this.#parts;
    const validator = this.#validator;
    return await download({ url, ...range, validator, ca, pace: leastPace, clock, signal });
  }

  /** Takes the blocks that are on this machine already, the ones of an earlier attempt included. */
  async #gather(file: FileHandle, path: string, index: BlockIndex, signal: AbortSignal): Promise<void> {
    const places = Map.groupBy(index.digests.keys(), (number) => index.digests[number]!);
    for (const number of index.digests.keys()) this.#missing.add(number);
    const scan = async (source: string, from: number) => {
      await using old = await open(source).catch(() => undefined);
      const piece = Buffer.allocUnsafe(limits.piece);
      for (let at = from; old && this.#missing.size > 0 && at < this.#parts.limit; at += piece.length) {
        signal.throwIfAborted();
        const { bytesRead } = await old.read(piece, 0, piece.length, at);
        const writes: Promise<void>[] = [];
        for (let start = 0; start < bytesRead; start += blockBytes) {
          const block = piece.subarray(start, Math.min(start + blockBytes, bytesRead));
          for (const number of places.get(blockDigest(block)) ?? []) {
            const to = this.#start(number);
            if (this.#missing.delete(number) && (source !== path || to !== at + start))
              writes.push(write(file, block, to));
          }
        }
        await Promise.all(writes).catch(failed);
        if (bytesRead < piece.length) return;
      }
    };
    await scan(path, index.first);
    for (const source of this.#parts.sources) await scan(source, 0);
  }

  /** The missing blocks as ranges, the last block included. */
  #ranges(): readonly [number, number][] {
    const ranges: [number, number][] = [];
    for (const number of [...this.#missing].toSorted((a, b) => a - b)) {
      const last = ranges.at(-1);
      if (last && number - last[1] < limits.gap) last[1] = number;
      else ranges.push([number, number]);
    }
    return ranges;
  }

  async #fetch(file: FileHandle, first: number, last: number, signal: AbortSignal): Promise<void> {
    const { url, wrote } = this.#parts;
    const { total } = this.#index!;
    let at = this.#start(first);
    const range = { from: at, to: this.#end(last) - 1, total };
    const { validator, body } = await this.#download(url, range, signal);
    this.#validator = validator;
    let number = first;
    for await (const chunk of body) {
      signal.throwIfAborted();
      await write(file, chunk, at).catch(failed);
      at += chunk.length;
      for (; number <= last && this.#end(number) <= at; number++) this.#missing.delete(number);
      wrote?.(this.received, total);
    }
  }

  /** Position of a block in the bundle. The position of the block behind the last one is the size of the bundle. */
  #start(number: number): number {
    const { first, total } = this.#index!;
    return number === 0 ? 0 : Math.min(total, first + (number - 1) * blockBytes);
  }

  #end(number: number): number {
    return this.#start(number + 1);
  }
}
