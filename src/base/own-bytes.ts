/**
 * The same bytes in memory of their own. Node cuts small buffers out of shared pieces of 64 KiB, and a buffer that is kept keeps its
 * whole piece. So this is for whatever is kept longer than the work on one message takes: without it, a table of a thousand
 * answers of 50 bytes holds 64 MB.
 */
export function ownBytes(bytes: Uint8Array): Buffer {
  const own = Buffer.allocUnsafeSlow(bytes.length);
  own.set(bytes);
  return own;
}
