import { createHash, type KeyObject } from 'node:crypto';
import { failed, persistently } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import type { DiskRoom } from '../../base/disk-room.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { presentable } from '../../base/presentable.ts';
import { DmStatus } from '../../dm/status.ts';
import { downloadResult, FumoResult } from '../../mo/fumo.ts';
import { ImageState } from '../../mo/gw-image-inventory.ts';
import type { ImageKeeper, ImageOrder, ImageStatus } from '../../mo/image-branch.ts';
import type { download } from '../northbound/download.ts';
import type { ServedImage } from '../southbound/image-resource.ts';
import type { ImageFiles } from '../store/image-files.ts';
import type { ImageRecord, Images } from '../store/images.ts';
import { checkImage } from './image-check.ts';
import { fetchImage } from './image-fetch.ts';
import { ImageIndexes } from './image-indexes.ts';
import { ImageRoom, withoutBytes } from './image-room.ts';

export interface ImageCacheParts {
  readonly images: Images;
  readonly files: ImageFiles;
  readonly disk: DiskRoom;
  /** Maximum number of bytes of all images together. */
  readonly quota: number;
  /** Maximum number of images that have a record. */
  readonly count: number;
  /** PEM of the certificate authorities for download servers; the machine's own when absent. */
  readonly ca?: string | undefined;
  /** Public keys. If there are any, each image must be signed by one of them. */
  readonly signingKeys: readonly KeyObject[];
  readonly download: typeof download;
  /** Called when an attempt to download an image has failed; `reason` undefined: the download has ended. */
  readonly brokeOff?: (name: string, reason: string | undefined) => void;
  /** Reads what the DM server currently orders for an image. */
  readonly order: (name: string) => ImageOrder;
  /** Path at which devices get an image over CoAP. */
  readonly pathOf: (name: string) => string;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Called when an operation has ended, in the transaction that stores its end. */
  readonly ended: (
    operation: { name: string; server: string; correlator: string | undefined },
    end: OperationEnd,
  ) => void;
}

/** What an operation on an image came to. */
export interface OperationEnd {
  /** Result code of FUMO. */
  readonly result: number;
  /** Why it failed. */
  readonly reason?: string;
}

/** The same, with the image that was stored. */
type ImageEnd = OperationEnd & { readonly size?: number; readonly hash?: string };

/** How images stand: for people who ask the gateway. */
export interface ImageSummary {
  /** Bytes in use, and that may be in use. */
  readonly used: number;
  readonly quota: number;
  /** Images that devices can get. */
  readonly stored: number;
  /** Images that are being downloaded. */
  readonly coming: number;
  /** Images whose last operation failed. */
  readonly failed: number;
}

/** Maximum number of downloads at the same time, and of bytes of a reason. */
const limits = { downloads: 2, reason: 200 } as const;

/**
 * Images for devices, stored on the gateway (GwMO, Image Inventory). An image is downloaded once, or pushed by the DM
 * server. It is verified, and then served to any number of devices. Until another version has been verified and stored,
 * devices get the one before. `ImageRoom` says how much room images have.
 */
export class ImageCache implements AsyncDisposable, ImageKeeper {
  readonly #parts: ImageCacheParts;
  readonly #room: ImageRoom;
  readonly #stop = new AbortController();
  /** Names of the images whose download waits. Bounded by the number of images. */
  readonly #waiting: string[] = [];
  /** Downloads in progress, by image name. */
  readonly #active = new Map<string, { readonly control: AbortController; readonly ended: Promise<void> }>();

  readonly #indexes: ImageIndexes;

  constructor(parts: ImageCacheParts) {
    this.#parts = parts;
    this.#room = new ImageRoom(parts);
    this.#indexes = new ImageIndexes(parts.files, this.#room);
  }

  /** Maximum number of bytes of all images together. */
  get quota(): number {
    return this.#parts.quota;
  }

  /** Bytes in use, partly downloaded images included. */
  get used(): number {
    return this.#parts.files.bytes;
  }

  get summary(): ImageSummary {
    const all = this.#parts.images.values();
    return {
      used: this.used,
      quota: this.quota,
      stored: all.filter(({ hash }) => hash !== undefined).length,
      coming: all.filter(({ state }) => state === ImageState.Coming).length,
      failed: all.filter(({ reason }) => reason !== undefined).length,
    };
  }

  /**
   * Compares records and files after a start, and continues downloads that were interrupted. What fails with one image does
   * not stop the gateway.
   */
  resume(): void {
    const { images, files, order, signingKeys } = this.#parts;
    for (const record of images.values())
      this.#safely(() => {
        const { name, size, hash, state } = record;
        if (hash !== undefined && files.size(name, hash) !== size) this.#lost(record);
        if (state !== ImageState.Coming) return;
        // A power cut may have damaged what was received, and nothing would notice.
        if (!order(name).hash && signingKeys.length === 0) files.part(name).drop();
        this.#enqueue(name);
      });
    this.#safely(() => {
      const stored = images
        .values()
        .flatMap(({ name, hash }) => (hash === undefined ? [] : [[name, hash] as const]));
      files.sweep(new Map(stored), this.#waiting.concat(...this.#active.keys()));
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await Promise.all([...this.#active.values()].map(({ ended }) => ended));
    await this.#indexes.settled();
  }

  /** Status of an image; of an unknown one, state Idle. */
  status(name: string): ImageStatus {
    const { images, files, pathOf } = this.#parts;
    const record = images.get(name);
    const { state = ImageState.Idle, size = 0, total = 0, hash, result = 0, reason = '' } = record ?? {};
    const isComing = state === ImageState.Coming;
    const received = isComing ? files.part(name).bytes : hash === undefined ? 0 : size;
    return { state, size: isComing ? total : size, received, result, reason, path: pathOf(name) };
  }

  /** An image that is stored; undefined otherwise. */
  ready(name: string): ServedImage | undefined {
    const { images, files, clock } = this.#parts;
    const { size, hash } = images.get(name) ?? {};
    if (size === undefined || hash === undefined) return undefined;
    // The time of use is updated only when a device reads the first block. That is exact enough for the eviction order.
    const read = (from: number, length: number) => {
      if (from === 0) images.touch(name, clock.wall());
      return files.read(name, hash, from, length);
    };
    return { size, hash, read, index: () => this.#indexes.of(name, hash, size) };
  }

  /** Path of the file of an image that is stored; undefined otherwise. */
  file(name: string): string | undefined {
    const { images, files } = this.#parts;
    const { hash } = images.get(name) ?? {};
    return hash === undefined ? undefined : files.path(name, hash);
  }

  reserve({ name, dropsEarlier = false }: ImageOrder, bytes: number, others: readonly string[]): void {
    this.#room.admit(name, others);
    this.#room.promise(pushed(name), { name, bytes, dropsEarlier });
  }

  release(name: string): void {
    this.#room.release(pushed(name));
  }

  take(order: ImageOrder, data: Uint8Array): void {
    const { files, images, signingKeys, events } = this.#parts;
    const { name } = order;
    const before = this.#record(name);
    this.#abort(name);
    const hash = createHash('sha256').update(data).digest('hex');
    this.#safely(() => {
      try {
        checkImage(order, hash, signingKeys);
        this.#room.make(pushed(name));
        files.put(name, hash, data);
        const { used } = before;
        const fields = { size: data.length, hash, inline: true, result: FumoResult.Ok };
        images.put({ name, used, state: ImageState.Ready, ...fields });
        this.#dropOld(before);
        events.emit('image.ready', { image: name, bytes: data.length });
      } catch (thrown) {
        if (hash !== before.hash) files.dropNew(name, hash);
        images.put(afterFailure(before, this.#failure(name, thrown)));
      }
    });
    this.release(name);
  }

  admit({ name, url, hash }: ImageOrder, isReplaced: boolean, others: readonly string[]): number {
    const { images, files } = this.#parts;
    if (url === undefined) throw new PosternError('malformed', `image ${name} has no PkgURL`);
    const known = images.get(name);
    if (known?.state === ImageState.Coming && !isReplaced)
      throw new PosternError('conflict', `image ${name} is being downloaded`);
    const isThere = known?.hash !== undefined && files.size(name, known.hash) === known.size;
    if (isThere && known.hash === hash && known.state === ImageState.Ready && !isReplaced) return DmStatus.Ok;
    this.#room.admit(name, others);
    return DmStatus.AcceptedForProcessing;
  }

  begin({ name }: ImageOrder, server: string, correlator: string | undefined): void {
    const { images } = this.#parts;
    const { result: _, reason: __, correlator: ___, ...record } = this.#record(name);
    const order = { state: ImageState.Coming, server, ...(correlator !== undefined && { correlator }) };
    images.put({ ...record, ...order });
    images.afterCommit(() => {
      this.#abort(name);
      this.#enqueue(name);
    });
  }

  remove(name: string): void {
    const { images } = this.#parts;
    const known = images.get(name);
    if (!known) return;
    images.put({ name, inline: false, used: known.used, state: ImageState.Idle });
    images.afterCommit(() => this.#discard(known));
  }

  forget(name: string): void {
    const { images } = this.#parts;
    const known = images.get(name);
    images.delete(name);
    if (known) images.afterCommit(() => this.#discard(known));
  }

  /** Stops the download of an image and deletes its bytes, which no record leads to any more. */
  #discard({ name, hash }: ImageRecord): void {
    const { files } = this.#parts;
    this.#abort(name);
    this.#safely(() => {
      files.part(name).drop();
      if (hash !== undefined) files.drop(name, hash);
    });
  }

  /** The record of an image; a fresh one for an unknown image. */
  #record(name: string): ImageRecord {
    const { images, clock } = this.#parts;
    return images.get(name) ?? { name, state: ImageState.Idle, inline: false, used: clock.wall() };
  }

  /** A stored image is not there, or not whole. */
  #lost(record: ImageRecord): void {
    const { images, files, events } = this.#parts;
    const reason = 'the stored image is missing or cut off';
    images.put({ ...withoutBytes(record, ImageState.Failed), result: FumoResult.Corrupt, reason });
    files.drop(record.name, record.hash ?? '');
    events.emit('image.failed', { image: record.name, result: FumoResult.Corrupt, reason });
  }

  /** Deletes the version of before, unless the new one is the same. */
  #dropOld({ name, hash }: ImageRecord): void {
    const { images, files } = this.#parts;
    if (hash !== undefined && hash !== images.get(name)?.hash) files.drop(name, hash);
  }

  /** Ends the downloads that servers ordered which have no account any more. */
  endOf(isGone: (server: string) => boolean): void {
    const { images } = this.#parts;
    const gone = new PosternError('forbidden', 'the account of the server that ordered it was deleted');
    for (const record of images.values())
      if (record.state === ImageState.Coming && record.server !== undefined && isGone(record.server))
        this.#safely(() => {
          this.#abort(record.name);
          images.put(afterFailure(record, this.#failure(record.name, gone)));
        });
  }

  /** Stops the download of an image, waiting or in progress. */
  #abort(name: string): void {
    this.#active.get(name)?.control.abort(new PosternError('conflict', 'the download was cancelled'));
    const at = this.#waiting.indexOf(name);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  #enqueue(name: string): void {
    this.#waiting.push(name);
    this.#next();
  }

  /** Starts waiting downloads up to the limit. A download of the same image that was cancelled has to end first. */
  #next(): void {
    while (this.#active.size < limits.downloads && !this.#stop.signal.aborted) {
      const at = this.#waiting.findIndex((each) => !this.#active.has(each));
      const [name] = at < 0 ? [] : this.#waiting.splice(at, 1);
      if (name === undefined) return;
      const control = new AbortController();
      const signal = AbortSignal.any([control.signal, this.#stop.signal]);
      const fetch = () => this.#fetch(name, signal);
      const ended = persistently(this.#parts, 'image', fetch, signal).then(() => {
        this.#active.delete(name);
        this.#next();
      });
      this.#active.set(name, { control, ended });
    }
  }

  /**
   * Downloads and verifies an image, and reports the result.
   * @throws when the gateway stops: the download continues after the next start. Or when the download was cancelled: nobody
   * expects a report
   */
  async #fetch(name: string, signal: AbortSignal): Promise<void> {
    const { files, events } = this.#parts;
    const operation = this.#record(name);
    try {
      const fetched = fetchImage({ ...this.#parts, room: this.#room }, name, signal);
      const end: ImageEnd = await fetched.catch((thrown) => {
        signal.throwIfAborted();
        return this.#failure(name, thrown);
      });
      await this.#settle(operation, end, signal);
      if (end.hash === undefined) return;
      this.#dropOld(operation);
      events.emit('image.ready', { image: name, bytes: end.size });
    } finally {
      this.#room.release(name);
      this.#parts.brokeOff?.(name, undefined);
      // A part stays if the download goes on later.
      if (this.#record(name).state !== ImageState.Coming) this.#safely(() => files.part(name).drop());
    }
  }

  /** Stores and reports the end of an operation in one transaction. Repeats that until the disk takes it. */
  async #settle(
    { name, server, correlator }: ImageRecord,
    end: ImageEnd,
    signal: AbortSignal,
  ): Promise<void> {
    const { images, ended } = this.#parts;
    const store = async () => {
      images.inTransaction(() => {
        const before = this.#record(name);
        if (end.hash === undefined) images.put(afterFailure(before, end));
        else images.put({ name, used: before.used, inline: false, state: ImageState.Ready, ...end });
        // Nobody ordered an image that was pushed.
        if (server !== undefined) ended({ name, server, correlator }, end);
      });
      await images.settled();
    };
    if (!(await persistently(this.#parts, 'image', store, signal))) throw signal.reason;
  }

  /** The end of an operation that failed. Deletes what was received. */
  #failure(name: string, thrown: unknown): OperationEnd {
    const { files, events } = this.#parts;
    const result = downloadResult(thrown);
    const reason = presentable(asPosternError(thrown).message, limits.reason);
    this.#safely(() => files.part(name).drop());
    events.emit('image.failed', { image: name, result, reason });
    return { result, reason };
  }

  /** Runs work that may fail, without a caller that could be told. */
  #safely(work: () => void): void {
    try {
      work();
    } catch (thrown) {
      failed(this.#parts.events, 'image', thrown);
    }
  }
}

/** Owner of the room for a pushed image that is not stored yet. */
const pushed = (name: string): string => `pushed ${name}`;

/** The record after an operation that failed. A version that was stored before is served as before. */
function afterFailure({ name, used, inline, size, hash }: ImageRecord, end: OperationEnd): ImageRecord {
  if (hash === undefined) return { name, used, inline: false, state: ImageState.Failed, ...end };
  return { name, used, inline, hash, state: ImageState.Ready, ...(size !== undefined && { size }), ...end };
}
