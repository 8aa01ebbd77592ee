import { linkSync, renameSync, rmSync, statSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from '../../base/clock.ts';
import { credit, type DiskRoom, isDiskFull } from '../../base/disk-room.ts';
import { syncLargeFile } from '../../base/durable.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { downloadResult, FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { imageScheme } from '../../mo/gw-image-inventory.ts';
import type { download } from '../northbound/download.ts';
import { downloadFile, type FileVersion, isFinal } from '../northbound/file-download.ts';
import { PartFile } from '../store/part-file.ts';
import { downloadDelta } from './delta.ts';

export interface BundleDownloadParts {
  /** Path where the bundle is stored. */
  readonly file: string;
  readonly disk: DiskRoom;
  readonly download: typeof download;
  /** PEM of the certificate authorities for download servers; the machine's own when undefined. */
  readonly ca: string | undefined;
  /** Path of the file of an image in the Image Inventory; undefined when it is not ready. */
  readonly imageFile: (name: string) => string | undefined;
  /** Files of the running version, as `SlotDriver.sources`. */
  readonly sources: readonly string[];
  /** Milliseconds without progress for which a download is tried again. */
  readonly retryFor: number;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Maximum size of a bundle in bytes. */
const limits = { bytes: 512 * 1024 * 1024 } as const;
const fileScheme = 'file:';
/** Owner of the room for the bundle. */
const room = 'update bundle';

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
  readonly #part: PartFile;
  /** Progress of the last HTTP download since the start. */
  progress: DownloadProgress | undefined;
  /** Why the download does not go on. */
  trouble: string | undefined;

  constructor(parts: BundleDownloadParts) {
    this.#parts = parts;
    this.#part = new PartFile(parts.file);
  }

  /**
   * Fetches a bundle. Returns whether it was received in more than one part.
   * @param version the version that is partly downloaded, if any
   * @param keep stores the version that comes now
   * @param misfit why an earlier download is of no use
   * @throws {FumoRefusal} with a FUMO result code
   * @throws the reason of the signal when it is aborted
   */
  async fetch(
    url: string,
    version: FileVersion,
    keep: (version: FileVersion) => void,
    signal: AbortSignal,
    misfit?: string,
  ): Promise<boolean> {
    try {
      if (url.startsWith(imageScheme)) {
        await this.#copyFrom(this.#image(url.slice(imageScheme.length)));
        return false;
      }
      if (url.startsWith(fileScheme)) {
        await this.#copyFrom(new URL(url).pathname);
        return false;
      }
      const { path, isJoined } =
        (await this.#loadDelta(url, version, signal, misfit)) ??
        (await this.#load(url, version, keep, signal, misfit));
      await this.#accept(path);
      return isJoined;
    } catch (thrown) {
      signal.throwIfAborted();
      if (thrown instanceof FumoRefusal) throw thrown;
      throw new FumoRefusal(downloadResult(thrown), asPosternError(thrown).message, { cause: thrown });
    } finally {
      this.trouble = undefined;
      this.#parts.disk.release(room);
    }
  }

  /** Deletes the complete bundle. What was received of one stays, for the next download of the same version. */
  dropComplete(): void {
    rmSync(this.#parts.file, { force: true });
    this.progress = undefined;
  }

  /** Deletes the bundle, complete or partly downloaded. */
  drop(): void {
    this.dropComplete();
    this.#part.drop();
  }

  /** Downloads only what is new in a bundle. Returns undefined when it has to be downloaded as a whole. */
  async #loadDelta(url: string, { validator }: FileVersion, signal: AbortSignal, misfit: string | undefined) {
    const { events, sources } = this.#parts;
    const isBegun = validator !== undefined && this.#part.received(url, validator) > 0;
    if (isBegun || misfit !== undefined || !/^(http|coap)s?:/.test(url) || !URL.canParse(url))
      return undefined;
    try {
      const path = await downloadDelta(
        {
          ...this.#common(url),
          sources,
          limit: limits.bytes,
          reserve: (bytes, received) => this.#reserve(bytes, received, 0),
          begun: (bytes, total) => events.emit('update.delta', { bytes, total }),
        },
        signal,
      );
      return { path, isJoined: true };
    } catch (thrown) {
      signal.throwIfAborted();
      const { code, message } = asPosternError(thrown);
      // The whole bundle would not come either.
      if (!isFinal(thrown) || code === 'full') throw thrown;
      if (code === 'notFound' || code === 'forbidden') return undefined;
      this.#part.drop();
      events.emit('update.delta-failed', { reason: message });
      return undefined;
    }
  }

  /** What all downloads have in common. */
  #common(url: string) {
    const { ca, download, retryFor, clock, entropy, events } = this.#parts;
    return {
      ...{ url, ca, download, part: this.#part, retryFor, clock, entropy },
      wrote: (received: number, total: number | undefined) => this.#wrote(received, total),
      brokeOff: (received: number, reason: string) => {
        // It may fail for hours.
        if (this.trouble !== reason) events.emit('update.download-broken', { reason, received });
        this.trouble = reason;
      },
    };
  }

  async #load(
    url: string,
    version: FileVersion,
    keep: (version: FileVersion) => void,
    signal: AbortSignal,
    misfit: string | undefined,
  ) {
    const { events } = this.#parts;
    return await downloadFile(
      {
        ...this.#common(url),
        ...{ version, keep },
        reserve: (bytes, received, next) => this.#reserve(bytes, received, credit(bytes, received, next)),
        begun: (from, total, reason = misfit) => events.emit('update.downloading', { from, total, reason }),
      },
      signal,
    );
  }

  /**
   * @param counted bytes that are kept from others
   * @throws {PosternError} `tooLarge`, `full`
   */
  #reserve(bytes: number, received = 0, counted = bytes): void {
    const { disk, file } = this.#parts;
    if (bytes > limits.bytes) throw new PosternError('tooLarge', `a bundle of ${bytes} bytes is too large`);
    disk.reserve(room, dirname(file), Math.max(0, bytes - received), counted);
  }

  #wrote(received: number, total: number | undefined): void {
    const before = this.progress?.received ?? 0;
    this.progress = { received, total };
    this.trouble = undefined;
    const tenths = (bytes: number) => (total === undefined ? 0 : Math.floor((bytes * 10) / total));
    if (tenths(received) > tenths(before))
      this.#parts.events.emit('update.download-progress', { received, total });
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
    const part = this.#part.path(from, undefined);
    this.#part.drop();
    try {
      linkSync(from, part);
    } catch {
      try {
        this.#reserve(statSync(from).size);
        await copyFile(from, part);
      } catch (cause) {
        this.#part.drop();
        if (cause instanceof PosternError) throw cause;
        const result = isDiskFull(cause) ? FumoResult.NoRoom : FumoResult.BadUrl;
        const { code } = cause as NodeJS.ErrnoException;
        throw new FumoRefusal(result, `${from} cannot be copied: ${code}`, { cause });
      }
    }
    await this.#accept(part);
  }

  /** Gives the complete file its final name. It survives a power cut when this resolves. */
  async #accept(part: string): Promise<void> {
    const { file } = this.#parts;
    await syncLargeFile(part);
    renameSync(part, file);
    await syncLargeFile(dirname(file));
  }
}
