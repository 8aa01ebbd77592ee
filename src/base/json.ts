/** Levels of arrays and objects that a JSON text from outside may have. */
export const jsonLevels = 64;

const code = (character: string): number => character.charCodeAt(0);
const [quote, backslash] = [code('"'), code('\\')];
const opening = new Set([code('['), code('{')]);
const closing = new Set([code(']'), code('}')]);

/**
 * Reads JSON that comes from outside. V8 takes up to half a second for a megabyte of nested arrays, so what is nested deeper than
 * `jsonLevels` is refused before it is parsed.
 * @param octets UTF-8
 * @param reviverFor chooses the reviver of `JSON.parse`, by the text
 * @throws {SyntaxError}
 */
export function parseJson(
  octets: Uint8Array,
  reviverFor?: (text: string) => Parameters<typeof JSON.parse>[1],
): unknown {
  if (isDeep(octets)) throw new SyntaxError(`more than ${jsonLevels} levels of arrays and objects`);
  const text = Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString();
  return JSON.parse(text, reviverFor?.(text));
}

function isDeep(octets: Uint8Array): boolean {
  let levels = 0;
  let isText = false;
  for (let at = 0; at < octets.length; at++) {
    const octet = octets[at]!;
    if (octet === quote) isText = !isText;
    else if (isText) {
      // What follows it is no end of the text.
      if (octet === backslash) at++;
    } else if (octet >= 0x5b) {
      if (opening.has(octet) && ++levels > jsonLevels) return true;
      if (closing.has(octet)) levels--;
    }
  }
  return false;
}
