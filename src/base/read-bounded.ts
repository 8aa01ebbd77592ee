import { PosternError } from './errors.ts';

/**
 * All that a stream brings, as one buffer; what is above `limit` bytes is not read.
 * @param what of which it is, for the error
 * @throws {PosternError} `tooLarge`
 */
export async function readBounded(
  stream: AsyncIterable<Uint8Array>,
  limit: number,
  what: string,
): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    if (bytes > limit) throw new PosternError('tooLarge', `${what} of more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
