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
  readonly file: string;
  readonly download: typeof download;
  /** PEM of the authorities of download servers. */
  readonly ca: string | undefined;
  /** File of an image of the Image Inventory, when it is ready. */
  readonly imageFile: (name: string) => string | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Bytes that a bundle may have. */
const limits = { bytes: 512 * 1024 * 1024 } as const;
const fileScheme = 'file:';

export interface DownloadProgress {
  readonly received: number;
  readonly total: number | undefined;
}

/** Brings a bundle to its place: from a download server, going on where it was broken off; or from an image that is here. */
export class BundleDownload {
  readonly #parts: BundleDownloadParts;
  progress: DownloadProgress | undefined;

  constructor(parts: BundleDownloadParts) {
    this.#parts = parts;
  }

  /**
   * @param validator what the server called the version of which a part is here; `known` hears when that changes
   * @throws {FumoRefusal} with a result of FUMO; {PosternError} when the signal is aborted
   */
  async fetch(
    url: string,
    validator: string | undefined,
    known: (validator: string | undefined) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const { file } = this.#parts;
    if (url.startsWith(imageScheme)) return await this.#take(this.#image(url.slice(imageScheme.length)));
    if (url.startsWith(fileScheme)) return await this.#take(new URL(url).pathname);
    await this.#load(url, validator, known, signal);
    await syncLargeFile(partOf(file));
    renameSync(partOf(file), file);
    syncFolder(dirname(file));
  }

  /** What is here goes; also what came only in part. */
  drop(): void {
    rmSync(this.#parts.file, { force: true });
    rmSync(partOf(this.#parts.file), { force: true });
    this.progress = undefined;
  }

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
    this.#makeSure(from, total);
    events.emit('update.downloading', { from, total });
    // Flash may take its time: nothing here holds up the devices.
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
      throw new PosternError('unavailable', `${at} of ${total} bytes came`);
  }

  /** That there is room is known before the first byte comes. */
  #makeSure(from: number, total: number | undefined): void {
    if (total === undefined) return;
    if (total > limits.bytes) throw new PosternError('tooLarge', `a bundle of ${total} bytes is not taken`);
    const { bavail, bsize } = statfsSync(dirname(this.#parts.file));
    if (total - from > bavail * bsize)
      throw new PosternError('full', `no room for a bundle of ${total} bytes: ${bavail * bsize} are free`);
  }

  #image(name: string): string {
    const file = this.#parts.imageFile(name);
    if (file === undefined) throw new FumoRefusal(FumoResult.BadUrl, `image ${name} is not ready`);
    return file;
  }

  async #take(from: string): Promise<void> {
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
      throw new FumoRefusal(result, `${from} cannot be taken: ${code}`, { cause });
    }
  }

  get #received(): number {
    return statSync(partOf(this.#parts.file), { throwIfNoEntry: false })?.size ?? 0;
  }
}

const partOf = (file: string): string => `${file}.part`;
