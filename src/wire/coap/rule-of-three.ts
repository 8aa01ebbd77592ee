import type { CoapOption } from './codec.ts';
import { Code } from './codes.ts';
import { isError, type Reply, refusal } from './message.ts';
import { Option, opaque } from './options.ts';

const extended = (value: number): number => (value < 13 ? 0 : value < 269 ? 1 : 2);

/** Bytes of options in ascending order, as they are encoded. */
export function encodedLength(options: readonly CoapOption[]): number {
  let bytes = 0;
  let previous = 0;
  for (const { number, value } of options) {
    bytes += 1 + extended(number - previous) + extended(value.length) + value.length;
    previous = number;
  }
  return bytes;
}

/**
 * A response that is short enough for a peer whose address may be forged. Block-wise transfer has made the blocks of a body
 * small before. So what is too long here is the text of an error, which is cut, or a response that no block can serve. In its
 * place goes a 4.01 with an Echo, which the client returns to show that it receives (RFC 9175 section 2.4).
 * @param room bytes for options and payload
 * @param issue makes the value of the Echo
 */
export function shortened(response: Reply, room: number, issue: () => Uint8Array): Reply {
  if (!isError(response)) {
    const options = [opaque(Option.Echo, issue())];
    return refusal(Code.Unauthorized, '', encodedLength(options) <= room ? { options } : {});
  }
  const { code } = response;
  const essential = response.options.filter(({ number }) => number === Option.Echo.number);
  const options = [response.options, essential].find((some) => encodedLength(some) <= room) ?? [];
  const rest = room - encodedLength(options) - 1;
  return { code, options, payload: rest > 0 ? cut(response.payload, rest) : response.payload.subarray(0, 0) };
}

/** At most `most` bytes of a text in UTF-8, without half a character. */
function cut(text: Uint8Array, most: number): Uint8Array {
  let end = Math.min(most, text.length);
  while (end > 0 && end < text.length && (text[end]! & 0xc0) === 0x80) end--;
  return text.subarray(0, end);
}
