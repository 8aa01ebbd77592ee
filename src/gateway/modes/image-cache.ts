import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto';
import { persistently } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { DmStatus } from '../../dm/status.ts';
import { downloadResult, FumoRefusal, FumoResult } from '../../mo/fumo.ts';
import { ImageState } from '../../mo/gw-image-inventory.ts';
import type { ImageKeeper, ImageOrder, ImageStatus } from '../../mo/image-branch.ts';
import { type download, downloadUntilComplete } from '../northbound/download.ts';
import type { ImageFiles } from '../store/image-files.ts';
import type { ImageRecord, Images } from '../store/images.ts';

export interface ImageCacheParts {
  readonly images: Images;
  readonly files: ImageFiles;
  /** Maximum number of bytes of all images together. */
  readonly quota: number;
  /** Maximum number of images that have a record. */
  readonly count: number;
  /** PEM of the certificate authorities for download servers; the machine's own when absent. */
  readonly ca?: string | undefined;
  /** Public keys. If there are any, each image must be signed by one of them. */
  readonly signingKeys: readonly KeyObject[];
  readonly download: typeof download;
  /** Reads what the DM server currently orders for an image. */
  readonly order: (name: string) => ImageOrder;
  /** Path at which devices get an image over CoAP. */
  readonly pathOf: (name: string) => string;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /**
   * Called when an operation has ended. `result` is a FUMO result code for the DM server that ordered the operation.
   */
  readonly ended: (
    operation: { name: string; server: string; correlator: string | undefined },
    result: number,
  ) => void;
}

/** Maximum number of downloads at the same time. */
const limits = { downloads: 2 } as const;

/**
 * Images for devices, stored on the gateway (GwMO, Image Inventory). An image is downloaded once, or pushed by the DM
 * server. It is verified, and then served to any number of devices. When space is short, the downloaded image that was
 * used longest ago is evicted first. A pushed image cannot be downloaded again, so it is deleted only by order of the
 * DM server.
 */
export class ImageCache implements AsyncDisposable, ImageKeeper {
  readonly #parts: ImageCacheParts;
  readonly #stop = new AbortController();
  /** Names of the images whose download waits. */
  readonly #waiting: string[] = [];
  /** Downloads in progress, by image name. */
  readonly #active = new Map<string, AbortController>();
  #running: Promise<void>[] = [];

  constructor(parts: ImageCacheParts) {
    this.#parts = parts;
  }

  /** Maximum number of bytes of all images together. */
  get quota(): number {
    return this.#parts.quota;
  }

  /** Bytes in use, partly downloaded images included. */
  get used(): number {
    return this.#parts.files.bytes;
  }

  /** Continues downloads that were interrupted by the stop of the gateway. */
  resume(): void {
    for (const { name, state } of this.#parts.images.values())
      if (state === ImageState.Coming) this.#enqueue(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PosternError('unavailable', 'the gateway stops'));
    await Promise.all(this.#running);
  }

  /** Status of an image; of an unknown one, state Idle. */
  status(name: string): ImageStatus {
    const { images, files, pathOf } = this.#parts;
    const { state = ImageState.Idle, size = 0, result = 0 } = images.get(name) ?? {};
    const received = state === ImageState.Ready ? size : files.received(name);
    return { state, size, received, result, path: pathOf(name) };
  }

  /** Size in bytes, SHA-256 and bytes of an image that is ready; undefined otherwise. */
  ready(
    name: string,
  ): { size: number; hash: string; read(from: number, length: number): Uint8Array } | undefined {
    const { images, files, clock } = this.#parts;
    const record = images.get(name);
    if (record?.state !== ImageState.Ready || record.size === undefined || record.hash === undefined)
      return undefined;
    // The time of use is updated only when a device reads the first block. That is exact enough for the eviction order.
    const read = (from: number, length: number) => {
      if (from === 0) images.put({ ...record, ...images.get(name), used: clock.wall() });
      return files.read(name, from, length);
    };
    return { size: record.size, hash: record.hash, read };
  }

  /** Path of the file of an image that is ready; undefined otherwise. */
  file(name: string): string | undefined {
    return this.ready(name) && this.#parts.files.path(name);
  }

  /**
   * Makes sure that an image of this size fits: evicts downloaded images as needed.
   * @throws {PosternError} `full` when there are too many images or too little can be evicted, `tooLarge` when the
   * image is larger than the quota
   */
  makeRoom(name: string, bytes: number): void {
    const { images, files, quota, count, events } = this.#parts;
    if (!images.get(name) && images.values().length >= count)
      throw new PosternError('full', `the limit of ${count} images is reached; delete one`);
    if (bytes > quota) throw new PosternError('tooLarge', `all images together may take ${quota} bytes`);
    const own = files.received(name);
    let excess = files.bytes - own + bytes - quota;
    const evictable = images
      .values()
      .filter((image) => image.name !== name && image.state === ImageState.Ready && !image.inline)
      .toSorted((a, b) => a.used - b.used);
    for (const image of evictable) {
      if (excess <= 0) break;
      excess -= image.size ?? 0;
      files.drop(image.name);
      images.put({ ...image, state: ImageState.Evicted });
      events.emit('image.evicted', { image: image.name, bytes: image.size });
    }
    if (excess > 0) throw new PosternError('full', `no room for ${bytes} bytes of images`);
  }

  /** Stores and verifies an image that the DM server pushed. The result is in the image's status. */
  take(order: ImageOrder, data: Uint8Array): void {
    const { files, events, images } = this.#parts;
    const { name } = order;
    this.#abort(name);
    const hash = createHash('sha256').update(data).digest('hex');
    this.#put(name, { inline: true, state: ImageState.Coming, size: data.length });
    try {
      files.append(name, data, 0);
      this.#check(order, hash);
      files.accept(name);
      this.#put(name, {
        inline: true,
        state: ImageState.Ready,
        size: data.length,
        hash,
        result: FumoResult.Ok,
      });
      events.emit('image.ready', { image: name, bytes: data.length });
    } catch (thrown) {
      files.dropPart(name);
      const result = downloadResult(thrown);
      images.put({ ...this.#record(name), state: ImageState.Failed, result });
      events.emit('image.failed', { image: name, result, reason: asPosternError(thrown).message });
    }
  }

  /**
   * Orders a download. Returns 202, and the result is reported later by `ended`; or 200 when the image is there already
   * with the right hash.
   * @throws {PosternError} `malformed` without a URL, `conflict` while the image is being downloaded, `full`
   */
  download(order: ImageOrder, server: string, correlator: string | undefined): number {
    const { images, files } = this.#parts;
    const { name, url } = order;
    if (url === undefined) throw new PosternError('malformed', `image ${name} has no PkgURL`);
    const known = images.get(name);
    if (known?.state === ImageState.Coming)
      throw new PosternError('conflict', `image ${name} is being downloaded`);
    if (known?.state === ImageState.Ready && files.has(name) && known.hash === order.hash) return DmStatus.Ok;
    this.makeRoom(name, 0);
    this.#put(name, {
      inline: false,
      state: ImageState.Coming,
      server,
      ...(correlator !== undefined && { correlator }),
      ...(known?.validator !== undefined && { validator: known.validator }),
    });
    this.#enqueue(name);
    return DmStatus.AcceptedForProcessing;
  }

  /** Deletes the bytes of an image and stops its download. The record stays, in state Idle. */
  remove(name: string): void {
    const { images, files } = this.#parts;
    this.#abort(name);
    files.dropPart(name);
    files.drop(name);
    const known = images.get(name);
    if (known) images.put({ name, inline: false, used: known.used, state: ImageState.Idle });
  }

  /** Deletes the bytes and the record of an image. */
  forget(name: string): void {
    this.remove(name);
    this.#parts.images.delete(name);
  }

  /** The record of an image; a fresh one for an unknown image. */
  #record(name: string): ImageRecord {
    return (
      this.#parts.images.get(name) ?? {
        name,
        state: ImageState.Idle,
        inline: false,
        used: this.#parts.clock.wall(),
      }
    );
  }

  /** Replaces the record of an image. The time of use stays. */
  #put(name: string, fields: Omit<ImageRecord, 'name' | 'used'>): void {
    this.#parts.images.put({ name, used: this.#record(name).used, ...fields });
  }

  /** Stops the download of an image, waiting or in progress. */
  #abort(name: string): void {
    this.#active.get(name)?.abort(new PosternError('conflict', 'the download was cancelled'));
    const at = this.#waiting.indexOf(name);
    if (at >= 0) this.#waiting.splice(at, 1);
  }

  #enqueue(name: string): void {
    this.#waiting.push(name);
    this.#next();
  }

  /** Starts waiting downloads up to the limit. */
  #next(): void {
    while (this.#active.size < limits.downloads && !this.#stop.signal.aborted) {
      const name = this.#waiting.shift();
      if (name === undefined) return;
      const control = new AbortController();
      this.#active.set(name, control);
      const signal = AbortSignal.any([control.signal, this.#stop.signal]);
      const fetched = persistently(this.#parts, 'image-download', () => this.#fetch(name, signal), signal);
      const run = fetched.then(() => {
        this.#active.delete(name);
        this.#running = this.#running.filter((each) => each !== run);
        this.#next();
      });
      this.#running.push(run);
    }
  }

  /** Downloads and verifies an image, and reports the result. */
  async #fetch(name: string, signal: AbortSignal): Promise<void> {
    const { files, events, order } = this.#parts;
    const operation = this.#record(name);
    try {
      await this.#downloadUntilComplete(name, order(name), signal);
      const hash = await files.hashPart(name);
      this.#check(order(name), hash);
      signal.throwIfAborted();
      files.accept(name);
      const { size, validator } = this.#record(name);
      const ready = {
        inline: false,
        state: ImageState.Ready,
        hash,
        result: FumoResult.Ok,
        ...(size !== undefined && { size }),
        ...(validator !== undefined && { validator }),
      };
      await this.#end(operation, ready, signal);
      events.emit('image.ready', { image: name, bytes: size });
    } catch (thrown) {
      // The gateway stops: the download continues after the next start. Or the download was cancelled: nobody expects a
      // report.
      if (signal.aborted) return;
      const result = downloadResult(thrown);
      files.dropPart(name);
      await this.#end(operation, { inline: false, state: ImageState.Failed, result }, signal);
      events.emit('image.failed', { image: name, result, reason: asPosternError(thrown).message });
    }
  }

  /** Stores and reports the end of an operation in one transaction. Repeats this until it succeeds. */
  async #end(
    { name, server, correlator }: ImageRecord,
    fields: Omit<ImageRecord, 'name' | 'used'> & { readonly result: number },
    signal: AbortSignal,
  ): Promise<void> {
    const { images, ended } = this.#parts;
    const store = () =>
      images.inTransaction(() => {
        this.#put(name, fields);
        // Nobody ordered an image that was pushed.
        if (server !== undefined) ended({ name, server, correlator }, fields.result);
      });
    await persistently(this.#parts, 'image-download', store, signal);
  }

  async #downloadUntilComplete(name: string, { url = '' }: ImageOrder, signal: AbortSignal): Promise<void> {
    const { files, clock, entropy, events } = this.#parts;
    await downloadUntilComplete(
      {
        received: () => files.received(name),
        attempt: () => this.#attempt(name, url, signal),
        brokeOff: (received, reason) => events.emit('image.broke-off', { image: name, received, reason }),
        clock,
        entropy,
      },
      signal,
    );
  }

  /** Downloads the rest of an image. */
  async #attempt(name: string, url: string, signal: AbortSignal): Promise<void> {
    const { files, download, ca, events } = this.#parts;
    const { validator: known } = this.#record(name);
    const { from, total, validator, body } = await download({
      url,
      from: files.received(name),
      validator: known,
      ca,
      signal,
    });
    if (total !== undefined) this.makeRoom(name, total);
    const { size: _, validator: __, ...record } = this.#record(name);
    this.#parts.images.put({
      ...record,
      ...(total !== undefined && { size: total }),
      ...(validator !== undefined && { validator }),
    });
    events.emit('image.coming', { image: name, from, total });
    let at = from;
    for await (const chunk of body) {
      if (total === undefined) this.makeRoom(name, at + chunk.length);
      files.append(name, chunk, at);
      at += chunk.length;
      signal.throwIfAborted();
    }
    if (total !== undefined && at !== total)
      throw new PosternError('unavailable', `${at} of ${total} bytes were received`);
    if (at === 0) files.append(name, new Uint8Array(), 0);
    this.#parts.images.put({ ...this.#record(name), size: at });
  }

  /**
   * Verifies hash and signature of an image.
   * @throws {FumoRefusal} 402 for another hash, 404 without a valid signature
   */
  #check({ hash: wanted, signature }: ImageOrder, hash: string): void {
    const { signingKeys } = this.#parts;
    if (wanted !== undefined && wanted !== '' && wanted !== hash)
      throw new FumoRefusal(FumoResult.Corrupt, `the SHA-256 is ${hash}`);
    if (signingKeys.length === 0) return;
    const octets = Buffer.from(signature ?? '', 'base64');
    const digest = Buffer.from(hash, 'hex');
    // Ed25519 has a fixed digest algorithm. The other key types need its name.
    const isSigned = signingKeys.some((key) =>
      verify(key.asymmetricKeyType === 'ed25519' ? null : 'sha256', digest, key, octets),
    );
    if (!isSigned)
      throw new FumoRefusal(FumoResult.NotValidated, 'the image has no signature by a trusted key');
  }
}

/**
 * Reads a public key from PEM.
 * @param file name of the file, for the error message
 * @throws {PosternError} `configuration` when it is not a public key
 */
export function readSigningKey(pem: string, file: string): KeyObject {
  try {
    return createPublicKey(pem);
  } catch (cause) {
    throw new PosternError('configuration', `images.signing-keys: ${file} holds no public key`, { cause });
  }
}
