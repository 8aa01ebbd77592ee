import type { KeyObject } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { FumoResult } from '../../mo/fumo.ts';
import type { ImageOrder } from '../../mo/image-branch.ts';
import type { download } from '../northbound/download.ts';
import { type DownloadedFile, downloadFile } from '../northbound/file-download.ts';
import type { ImageFiles } from '../store/image-files.ts';
import type { Images } from '../store/images.ts';
import { checkImage } from './image-check.ts';
import type { ImageRoom } from './image-room.ts';

export interface ImageFetchParts {
  readonly images: Images;
  readonly files: ImageFiles;
  readonly room: ImageRoom;
  readonly download: typeof download;
  readonly ca?: string | undefined;
  readonly signingKeys: readonly KeyObject[];
  readonly order: (name: string) => ImageOrder;
  /** Called when an attempt has failed and the next one waits. */
  readonly brokeOff?: ((name: string, reason: string) => void) | undefined;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** An image that was downloaded, verified and stored, and that no record leads to yet. */
export interface FetchedImage {
  readonly result: number;
  /** Bytes. */
  readonly size: number;
  /** SHA-256 in hexadecimal. */
  readonly hash: string;
}

/**
 * Downloads an image, verifies it, and stores it beside the version before. If it came in several parts and is not what was
 * ordered, the parts may not belong together. It is then downloaded once more, in one part.
 * @throws {FumoRefusal} when it does not pass its check
 * @throws what `downloadFile` throws
 */
export async function fetchImage(
  parts: ImageFetchParts,
  name: string,
  signal: AbortSignal,
): Promise<FetchedImage> {
  const { images, files, order, signingKeys } = parts;
  for (let misfit: string | undefined; ; ) {
    const { path, size, isJoined } = await load(parts, name, misfit, signal);
    const hash = await files.hash(path);
    try {
      checkImage(order(name), hash, signingKeys);
    } catch (thrown) {
      if (!isJoined || misfit !== undefined) throw thrown;
      misfit = `the parts do not fit together: ${asPosternError(thrown).message}`;
      files.part(name).drop();
      continue;
    }
    signal.throwIfAborted();
    await files.accept(name, hash, path);
    if (signal.aborted && hash !== images.get(name)?.hash) files.dropNew(name, hash);
    signal.throwIfAborted();
    return { size, hash, result: FumoResult.Ok };
  }
}

/** @param misfit why an earlier download is of no use */
async function load(
  parts: ImageFetchParts,
  name: string,
  misfit: string | undefined,
  signal: AbortSignal,
): Promise<DownloadedFile> {
  const { images, files, room, order, download, ca, clock, entropy, events } = parts;
  const part = files.part(name);
  return await downloadFile(
    {
      ...{ url: order(name).url ?? '', ca, download, part, version: images.get(name) ?? {}, clock, entropy },
      keep: ({ validator, total }) => {
        const { validator: _, total: __, ...record } = images.get(name)!;
        const version = {
          ...(validator !== undefined && { validator }),
          ...(total !== undefined && { total }),
        };
        images.put({ ...record, ...version });
      },
      reserve: (bytes, received, next) =>
        room.reserve(name, { name, bytes, received, next, dropsEarlier: order(name).dropsEarlier ?? false }),
      begun: (from, total, reason = misfit) =>
        events.emit('image.coming', { image: name, from, total, reason }),
      brokeOff: (received, reason) => {
        events.emit('image.broke-off', { image: name, received, reason });
        parts.brokeOff?.(name, reason);
      },
    },
    signal,
  );
}
