import type { FileHandle } from 'node:fs/promises';
import { type Clock, pause } from '../../base/clock.ts';
import { isDiskFull } from '../../base/disk-room.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, type ErrorCode, PosternError } from '../../base/errors.ts';
import { backoff } from '../../base/retry.ts';
import { FumoRefusal } from '../../mo/fumo.ts';
import type { PartFile } from '../store/part-file.ts';
import type { download } from './download.ts';

/** A version of a file at a download server. */
export interface FileVersion {
  /** Strong ETag or Last-Modified. Undefined when the server names neither: the file is never continued then. */
  readonly validator?: string | undefined;
  /** Size of the whole file in bytes; undefined while it is unknown. */
  readonly total?: number | undefined;
}

/** How often a download is tried, and who hears of it. */
export interface Trying {
  /** An attempt failed and another one follows. */
  readonly brokeOff: (received: number, reason: string) => void;
  /**
   * Milliseconds without progress for which a download is tried again. When absent, it fails after `attempts` attempts in a row
   * without progress.
   */
  readonly retryFor?: number | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
}

export interface FileDownload extends Trying {
  readonly url: string;
  /** PEM of the certificate authorities for download servers; the machine's own when undefined. */
  readonly ca: string | undefined;
  readonly download: typeof download;
  readonly part: PartFile;
  /** The version that is partly downloaded, as `keep` got it last. */
  readonly version: FileVersion;
  /** Stores the version that comes now. Its bytes are written only after that. */
  readonly keep: (version: FileVersion) => void;
  /**
   * Makes sure that there is room for the whole file. Called with the announced size before the first byte is written, and
   * before each chunk with the size that is certain by then.
   * @param received bytes of it that are on the disk
   * @param next bytes of it that are written next
   * @throws {PosternError} `full`, `tooLarge`
   */
  readonly reserve: (bytes: number, received: number, next: number) => void;
  /** An attempt begins to receive. `reason`: why it does not continue the attempt before. */
  readonly begun: (from: number, total: number | undefined, reason: string | undefined) => void;
  /** A chunk was written. */
  readonly wrote?: (received: number, total: number | undefined) => void;
}

/** A file that is complete. */
export interface DownloadedFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Whether it was received in more than one part. */
  readonly isJoined: boolean;
}

/** Number of attempts in a row without progress after which a download fails. */
const attempts = 8;
/** Codes of errors that may pass. The state may be unwritable for a while. */
const transient: ReadonlySet<string> = new Set(['unavailable', 'timeout', 'storage'] satisfies ErrorCode[]);
/** Milliseconds between attempts. */
const retry = { first: 1000, cap: 60_000, jitter: 0.5 } as const;
/**
 * Bytes that a server must send in 30 seconds of waiting for it, in a download that has `retryFor`. That is one byte in a
 * millisecond.
 */
export const leastPace = 30_000;
/** Milliseconds from one failure to the next that count at most. A download may wait for its data budget for days. */
const countedWait = 180_000;

/**
 * Downloads a file in as many attempts as it takes. Gives up after `attempts` attempts in a row that did not come further
 * than any before, and at once on errors that do not pass.
 * @throws the error of the last attempt, or the reason of the signal
 */
export async function downloadFile(parts: FileDownload, signal: AbortSignal): Promise<DownloadedFile> {
  return await keepTrying(parts, new Receiver(parts), signal);
}

/**
 * Attempts a download until it succeeds. Gives up at once on errors that do not pass, and otherwise as `Trying.retryFor` says. With
 * `retryFor` it also gives up when all waiting, for attempts that failed and between them, has taken longer than `retryFor` and a
 * millisecond for each byte. So a server that sends a few bytes in each attempt does not hold it for ever.
 * @param receiver `received`: bytes that need not be downloaded again
 * @throws the error of the last attempt, or the reason of the signal
 */
export async function keepTrying<T>(
  { brokeOff, retryFor, clock, entropy }: Trying,
  receiver: { readonly received: number; attempt(signal: AbortSignal): Promise<T> },
  signal: AbortSignal,
): Promise<T> {
  let delays = backoff(retry, entropy);
  let furthest = receiver.received;
  const begun = furthest;
  let last = clock.now();
  let [failures, idle, spent] = [0, 0, 0];
  for (;;) {
    try {
      return await receiver.attempt(signal);
    } catch (thrown) {
      signal.throwIfAborted();
      const { received } = receiver;
      const waited = Math.min(clock.now() - last, countedWait);
      last = clock.now();
      idle += waited;
      spent += waited;
      if (received > furthest) {
        furthest = received;
        [failures, idle] = [0, 0];
        delays = backoff(retry, entropy);
      }
      failures++;
      const isOver =
        retryFor === undefined
          ? failures >= attempts
          : idle >= retryFor || spent >= retryFor + furthest - begun;
      if (isOver || isFinal(thrown)) throw thrown;
      brokeOff(received, asPosternError(thrown).message);
      await pause(clock, delays.next().value, signal);
    }
  }
}

/** Whether another attempt at a download would end with the same error. */
export const isFinal = (thrown: unknown): boolean =>
  thrown instanceof FumoRefusal || !transient.has(asPosternError(thrown).code);

/** The state of a download between its attempts. */
class Receiver {
  readonly #parts: FileDownload;
  #version: FileVersion;
  #isJoined = false;

  constructor(parts: FileDownload) {
    this.#parts = parts;
    this.#version = parts.version;
  }

  /** Bytes of the current version that are there. Bytes of a version without a validator cannot be continued. */
  get received(): number {
    const { validator } = this.#version;
    return validator === undefined ? 0 : this.#parts.part.received(this.#parts.url, validator);
  }

  async attempt(signal: AbortSignal): Promise<DownloadedFile> {
    const { url, part, ca, retryFor, clock, reserve } = this.#parts;
    const from = this.received;
    this.#isJoined ||= from > 0;
    const { validator, total } = this.#version;
    // The connection broke after the last byte.
    if (from > 0 && from === total) return this.#complete(from);
    if (total !== undefined) reserve(total, part.bytes, 0);
    const isUsable = total === undefined || from < total;
    using connection = new Connection(signal);
    const found = await this.#parts.download({
      ...{ url, from: isUsable ? from : 0, validator, total, ca, clock },
      ...(retryFor !== undefined && { pace: leastPace }),
      signal: connection.signal,
    });
    signal.throwIfAborted();
    // A part that an earlier order left is of this version.
    if (validator === undefined && found.validator !== undefined && part.received(url, found.validator) > 0) {
      connection[Symbol.dispose]();
      this.#keep(found);
      return await this.attempt(signal);
    }
    this.#isJoined = found.from > 0;
    reserve(found.total ?? 0, part.bytes, 0);
    if (found.from === 0 || found.total !== total) this.#keep(found);
    this.#parts.begun(found.from, found.total, found.anew);
    const file = await part.open(url, found.validator, found.from).catch(failed);
    try {
      return await this.#receive(file, found, signal);
    } finally {
      await file.close();
    }
  }

  #keep({ validator, total }: FileVersion): void {
    this.#version = { validator, total };
    this.#parts.keep(this.#version);
  }

  async #receive(
    file: FileHandle,
    { from, total, body }: Awaited<ReturnType<typeof download>>,
    signal: AbortSignal,
  ): Promise<DownloadedFile> {
    let at = from;
    for await (const chunk of body) {
      signal.throwIfAborted();
      if (total !== undefined && at + chunk.length > total)
        throw new PosternError('unavailable', 'the download server sent more than it announced');
      this.#parts.reserve(Math.max(total ?? 0, at + chunk.length), at, chunk.length);
      await write(file, chunk, at).catch(failed);
      at += chunk.length;
      this.#parts.wrote?.(at, total);
    }
    if (total !== undefined && at !== total)
      throw new PosternError('unavailable', `${at} of ${total} bytes were received`);
    return this.#complete(at);
  }

  #complete(size: number): DownloadedFile {
    const { part, url } = this.#parts;
    return { path: part.path(url, this.#version.validator), size, isJoined: this.#isJoined };
  }
}

/** Ends the connection of an attempt, also when its body was not read to the end. */
class Connection implements Disposable {
  readonly #control = new AbortController();
  readonly signal: AbortSignal;

  constructor(outer: AbortSignal) {
    this.signal = AbortSignal.any([outer, this.#control.signal]);
  }

  [Symbol.dispose](): void {
    this.#control.abort();
  }
}

/** Writes a chunk at a position. Writes to flash may be slow. They are asynchronous, so devices are served meanwhile. */
export async function write(file: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < chunk.length; )
    at += (await file.write(chunk, at, chunk.length - at, position + at)).bytesWritten;
}

/** @throws {PosternError} `full`, or `internal` when the file cannot be written otherwise */
export function failed(cause: unknown): never {
  if (isDiskFull(cause)) throw new PosternError('full', 'the disk is full', { cause });
  throw new PosternError('internal', `the file cannot be written: ${String(cause)}`, { cause });
}
