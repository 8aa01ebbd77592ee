import { PosternError } from './errors.ts';

/**
 * Reads a stream to its end into one buffer. Reading stops when more than `limit` bytes have arrived.
 * @param what what the stream carries, for the error message
 * @throws {PosternError} `tooLarge` above `limit` bytes
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
