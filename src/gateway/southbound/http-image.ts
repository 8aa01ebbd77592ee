import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ServedImage } from './image-resource.ts';

/** Bytes that are read of an image, and wait in a response, at a time. */
const chunkBytes = 65_536;

/** First byte, and the byte after the last one. */
type Span = readonly [number, number];

/**
 * Answers a GET or HEAD with an image, whole or the part that the client asks for (RFC 9110, sections 13.1.5 and 14), so that a
 * download goes on where it was interrupted. Several parts at once are not served: the client gets the whole.
 */
export async function sendImage(
  { method, headers }: IncomingMessage,
  response: ServerResponse,
  image: ServedImage,
): Promise<void> {
  const etag = `"${image.hash}"`;
  const condition = headers['if-range'];
  const isSame = condition === undefined || condition === etag;
  const span = isSame ? spanIn(headers.range, image.size) : undefined;
  const common = { etag, 'accept-ranges': 'bytes', 'content-type': 'application/octet-stream' };
  if (span === 'none') {
    response.writeHead(416, { ...common, 'content-range': `bytes */${image.size}`, 'content-length': 0 });
    response.end();
    return;
  }
  const [from, to] = span ?? [0, image.size];
  response.writeHead(span ? 206 : 200, {
    ...common,
    'content-length': to - from,
    ...(span && { 'content-range': `bytes ${from}-${to - 1}/${image.size}` }),
  });
  if (method === 'HEAD') {
    response.end();
    return;
  }
  try {
    await pipeline(Readable.from(chunksOf(image, from, to), { objectMode: false }), response);
  } catch (thrown) {
    // A client that leaves comes back for the rest.
    if ((thrown as NodeJS.ErrnoException).code !== 'ERR_STREAM_PREMATURE_CLOSE') throw thrown;
  }
}

function* chunksOf(image: ServedImage, from: number, to: number): Generator<Uint8Array> {
  for (let at = from; at < to; at += chunkBytes) yield image.read(at, Math.min(chunkBytes, to - at));
}

/** The part that a Range asks for. Undefined for the whole, `none` where the image has nothing of it. */
function spanIn(range: string | undefined, size: number): Span | 'none' | undefined {
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(range ?? '') ?? [];
  if (first === '' && last === '') return undefined;
  const from = first === '' ? Math.max(0, size - Number(last)) : Number(first);
  const to = first === '' || last === '' ? size : Math.min(size, Number(last) + 1);
  // A part that ends before it begins means nothing, and is not heeded.
  if (first !== '' && last !== '' && Number(last) < from) return undefined;
  return from < to ? [from, to] : 'none';
}
