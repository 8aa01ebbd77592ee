import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import type { CoapRequest } from '../../wire/coap/message.ts';
import { refusal, reply } from '../../wire/coap/message.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { paths, resourceTypes } from '../../wire/resources.ts';

/** An image that can be served. */
export interface ServedImage {
  readonly size: number;
  /** SHA-256 in hexadecimal. */
  readonly hash: string;
  read(from: number, length: number): Uint8Array;
}

const etagBytes = 8;

export const imagePath = (name: string): string => `${paths.images}/${encodeURIComponent(name)}`;

/** The path of one version of an image: what comes from there is always of that version, or does not come. */
export const versionPath = (name: string, hash: string): string =>
  `${imagePath(name)}?v=${hash.slice(0, 16)}`;

/**
 * `/img/{name}`: images of the Image Inventory, block by block, each for itself: a device that broke off goes on with any
 * block, and the ETag tells it whether the image is still the same (RFC 7959 section 2.4). Nothing is kept per device.
 */
export function imageResource(
  image: (name: string) => ServedImage | undefined,
  isKnown: (request: CoapRequest) => boolean,
): Resource {
  const find = (request: CoapRequest) => {
    const found = request.path.length === 2 ? image(request.path[1] ?? '') : undefined;
    const version = request.parameter('v');
    return version === undefined || found?.hash.startsWith(version) ? found : undefined;
  };
  const tagOf = ({ hash }: ServedImage) => Buffer.from(hash, 'hex').subarray(0, etagBytes);
  return {
    path: paths.images,
    subtree: true,
    links: () => [{ target: paths.images, attributes: { rt: resourceTypes.images } }],
    etag: (request) => {
      const found = isKnown(request) ? find(request) : undefined;
      return found && tagOf(found);
    },
    methods: {
      GET: (request) => {
        if (!isKnown(request))
          return refusal(Code.Unauthorized, `prove yourself in a session at ${paths.sessions} first`);
        const found = find(request);
        if (!found) return refusal(Code.NotFound, 'no such image is ready here');
        return reply(Code.Content, {
          content: { size: found.size, read: (from, length) => found.read(from, length) },
          contentFormat: ContentFormat.OctetStream,
          etag: tagOf(found),
          maxAge: 3600,
        });
      },
    },
  };
}
