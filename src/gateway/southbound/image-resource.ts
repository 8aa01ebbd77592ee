import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import type { CoapRequest } from '../../wire/coap/message.ts';
import { refusal, reply } from '../../wire/coap/message.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { paths, resourceTypes } from '../../wire/resources.ts';

/** An image that is ready to be served, or the index of its blocks. */
export interface ServedImage {
  /** Bytes. */
  readonly size: number;
  /** SHA-256 of the image in hexadecimal. */
  readonly hash: string;
  /** Reads up to `length` bytes at position `from`. */
  read(from: number, length: number): Uint8Array;
  /**
   * The index of the blocks of the image (store/block-index.ts). Undefined when there is none.
   * @throws {PosternError} `unavailable` when it can be had later
   */
  index?(): Promise<ServedImage | undefined>;
}

const etagBytes = 8;

/** Path of the images. */
export const imageRoot = paths.images;

/**
 * The name of the image whose index has this name, or its path and query: without `indexSuffix`, by which the name of an index ends.
 * Undefined for other names.
 */
export function indexedBy(path: string): string | undefined {
  const [, image, query = ''] = /^([^?]+)\.blocks(\?.*)?$/.exec(path) ?? [];
  return image && image + query;
}

export const imagePath = (name: string): string => `${imageRoot}/${encodeURIComponent(name)}`;

/** Path and query of one version of an image. The resource returns only this version, or 4.04. */
export const versionPath = (name: string, hash: string): string =>
  `${imagePath(name)}?v=${hash.slice(0, 16)}`;

/**
 * CoAP resource `/img/{name}`: the images of the Image Inventory, in blocks; at `/img/{name}.blocks` the index of an image. Each block is answered independently, so a
 * device can resume with any block. The ETag tells the device whether the image is still the same (RFC 7959 section
 * 2.4). The gateway keeps no state per device.
 * @param image finds an image that is ready
 * @param isKnown whether the request comes from an attached device, or has its ticket; others get 4.01
 */
export function imageResource(
  image: (name: string) => ServedImage | undefined,
  isKnown: (request: CoapRequest) => boolean,
): Resource {
  const find = (request: CoapRequest) => {
    const name = request.path.length === 2 ? (request.path[1] ?? '') : '';
    const whole = image(name);
    const found = whole ?? image(indexedBy(name) ?? '');
    const version = request.parameter('v');
    if (!found || (version !== undefined && !found.hash.startsWith(version))) return undefined;
    return { found, isIndex: !whole };
  };
  const answer = (served: ServedImage | undefined) =>
    served
      ? reply(Code.Content, {
          content: { size: served.size, read: (from, length) => served.read(from, length) },
          contentFormat: ContentFormat.OctetStream,
          etag: tagOf(served),
          maxAge: 3600,
        })
      : refusal(Code.NotFound, 'there is no such image, or it is not ready');
  const tagOf = ({ hash }: ServedImage) => Buffer.from(hash, 'hex').subarray(0, etagBytes);
  return {
    path: paths.images,
    subtree: true,
    links: () => [{ target: paths.images, attributes: { rt: resourceTypes.images } }],
    etag: (request) => {
      const { found } = (isKnown(request) && find(request)) || {};
      return found && tagOf(found);
    },
    methods: {
      GET: (request) => {
        if (!isKnown(request))
          return refusal(Code.Unauthorized, `authenticate in a session at ${paths.sessions} first`);
        const { found, isIndex } = find(request) ?? {};
        return isIndex ? (found?.index?.().then(answer) ?? answer(undefined)) : answer(found);
      },
    },
  };
}
