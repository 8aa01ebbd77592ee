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

/** Shorter texts are always copied when they are cut out. */
const shortestPart = 13;

/**
 * The same text in memory of its own, with U+FFFD in place of half a surrogate pair. V8 makes a longer part of a text by pointing
 * into the text, and a part that is kept keeps the whole: the name of a device would hold the message of 256 KiB that it came in.
 */
export const ownText = (text: string): string =>
  text.length < shortestPart ? text : Buffer.from(text).toString();
