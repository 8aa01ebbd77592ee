import { linkSync, renameSync, rmSync, statfsSync, statSync } from 'node:fs';
import { copyFile, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { syncFolder, syncLargeFile } from '../../base/durable.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { downloadResult, FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { imageScheme } from '../../mo/gw-image-inventory.ts';
import { type download, downloadUntilComplete } from '../northbound/download.ts';

export interface BundleDownloadParts {
  /** Path where the bundle is stored. */
  readonly file: string;
  readonly download: typeof download;
  /** PEM of the certificate authorities for download servers; the machine's own when undefined. */
  readonly ca: string | undefined;
  /** Path of the file of an image in the Image Inventory; undefined when it is not ready. */
  readonly imageFile: (name: string) => string | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Maximum size of a bundle in bytes. */
const limits = { bytes: 512 * 1024 * 1024 } as const;
const fileScheme = 'file:';

/** Bytes received so far, and in total as far as it is known. */
export interface DownloadProgress {
  readonly received: number;
  readonly total: number | undefined;
}

/**
 * Stores a bundle where the slots expect it. A download over HTTP resumes where it was interrupted. A bundle may also
 * come from an image of the Image Inventory (`gw-image:NAME`) or from a local file (`file:`).
 */
export class BundleDownload {
  readonly #parts: BundleDownloadParts;
  /** Progress of the last HTTP download since the start. */
  progress: DownloadProgress | undefined;

  constructor(parts: BundleDownloadParts) {
    this.#parts = parts;
  }

  /**
   * Fetches a bundle.
   * @param validator validator (ETag or Last-Modified) of the version that is partly downloaded, if any
   * @param known called with the new validator when it changes
   * @throws {FumoRefusal} with a FUMO result code
   * @throws the reason of the signal when it is aborted
   */
  async fetch(
    url: string,
    validator: string | undefined,
    known: (validator: string | undefined) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { file } = this.#parts;
    if (url.startsWith(imageScheme)) return await this.#copyFrom(this.#image(url.slice(imageScheme.length)));
    if (url.startsWith(fileScheme)) return await this.#copyFrom(new URL(url).pathname);
    await this.#load(url, validator, known, signal);
    await syncLargeFile(partOf(file));
    renameSync(partOf(file), file);
    syncFolder(dirname(file));
  }

  /** Deletes the bundle, complete or partly downloaded. */
  drop(): void {
    rmSync(this.#parts.file, { force: true });
    rmSync(partOf(this.#parts.file), { force: true });
    this.progress = undefined;
  }

  /** Downloads until the bundle is complete. */
  async #load(
    url: string,
    validator: string | undefined,
    known: (validator: string | undefined) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, entropy, events } = this.#parts;
    let tag = validator;
    const keep = (found: string | undefined) => {
      tag = found;
      known(found);
    };
    try {
      await downloadUntilComplete(
        {
          received: () => this.#received,
          attempt: () => this.#attempt(url, tag, keep, signal),
          brokeOff: (received, reason) => events.emit('update.download-broken', { reason, received }),
          clock,
          entropy,
        },
        signal,
      );
    } catch (thrown) {
      signal.throwIfAborted();
      throw new FumoRefusal(downloadResult(thrown), asPosternError(thrown).message, { cause: thrown });
    }
  }

  /** Downloads the rest of the bundle. */
  async #attempt(
    url: string,
    validator: string | undefined,
    keep: (validator: string | undefined) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { ca, events, file } = this.#parts;
    const found = await this.#parts.download({ url, from: this.#received, validator, ca, signal });
    if (found.validator !== validator) keep(found.validator);
    const { from, total } = found;
    this.#checkRoom(from, total);
    events.emit('update.downloading', { from, total });
    // Writes to flash may be slow. They are asynchronous, so that devices are served meanwhile.
    const part = await open(partOf(file), from === 0 ? 'w' : 'a', 0o600);
    let at = from;
    try {
      for await (const chunk of found.body) {
        await part.writeFile(chunk);
        const tenth = total === undefined ? 0 : Math.floor((at * 10) / total);
        at += chunk.length;
        if (at > limits.bytes) throw new PosternError('tooLarge', 'the bundle is too large');
        this.progress = { received: at, total };
        if (total !== undefined && Math.floor((at * 10) / total) > tenth)
          events.emit('update.download-progress', { received: at, total });
        signal.throwIfAborted();
      }
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException;
      if (code === 'ENOSPC' || code === 'EDQUOT')
        throw new PosternError('full', 'no room for the bundle', { cause: thrown });
      throw thrown;
    } finally {
      await part.close();
    }
    if (total !== undefined && at !== total)
      throw new PosternError('unavailable', `${at} of ${total} bytes were received`);
  }

  /**
   * Checks before the transfer that the bundle fits.
   * @throws {PosternError} `tooLarge`, `full`
   */
  #checkRoom(from: number, total: number | undefined): void {
    if (total === undefined) return;
    if (total > limits.bytes) throw new PosternError('tooLarge', `a bundle of ${total} bytes is too large`);
    const { bavail, bsize } = statfsSync(dirname(this.#parts.file));
    if (total - from > bavail * bsize)
      throw new PosternError('full', `no room for a bundle of ${total} bytes: ${bavail * bsize} are free`);
  }

  /** @throws {FumoRefusal} 411 when the image is not ready */
  #image(name: string): string {
    const file = this.#parts.imageFile(name);
    if (file === undefined) throw new FumoRefusal(FumoResult.BadUrl, `image ${name} is not ready`);
    return file;
  }

  /**
   * Stores a local file as the bundle: as a hard link if possible, else as a copy.
   * @throws {FumoRefusal} 501 when the disk is full, else 411
   */
  async #copyFrom(from: string): Promise<void> {
    const { file } = this.#parts;
    try {
      rmSync(partOf(file), { force: true });
      try {
        linkSync(from, partOf(file));
      } catch {
        await copyFile(from, partOf(file));
        await syncLargeFile(partOf(file));
      }
      renameSync(partOf(file), file);
      syncFolder(dirname(file));
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      const result = code === 'ENOSPC' || code === 'EDQUOT' ? FumoResult.NoRoom : FumoResult.BadUrl;
      throw new FumoRefusal(result, `${from} cannot be copied: ${code}`, { cause });
    }
  }

  /** Bytes downloaded so far. */
  get #received(): number {
    return statSync(partOf(this.#parts.file), { throwIfNoEntry: false })?.size ?? 0;
  }
}

const partOf = (file: string): string => `${file}.part`;
