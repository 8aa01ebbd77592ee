import { PosternError } from '../../base/errors.ts';
import { fitsXml } from '../../base/presentable.ts';

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/**
 * Escapes text for XML 1.0, for element content and for attribute values in double quotes.
 * @throws {PosternError} `malformed` for characters that XML 1.0 cannot express
 */
export function escapeXml(value: string): string {
  // XML 1.0 cannot express most control characters, not even by a character reference.
  if (!fitsXml(value)) {
    const unfit = invalidXml(value);
    throw new PosternError('malformed', `XML cannot express the character U+${unfit}`);
  }
  if (!/[&<>"\r]/.test(value)) return value;
  return value.replace(/[&<>"]/g, (character) => entities[character]!).replaceAll('\r', '&#13;');
}

/** Code point, in hexadecimal, of the first character that XML 1.0 does not allow (section 2.2). */
function invalidXml(value: string): string | undefined {
  for (const character of value) {
    const point = character.codePointAt(0)!;
    const fits =
      point === 9 ||
      point === 10 ||
      point === 13 ||
      (point >= 32 && point < 0xd800) ||
      (point > 0xdfff && point < 0xfffe) ||
      point > 0xffff;
    if (!fits) return point.toString(16).padStart(4, '0');
  }
  return undefined;
}
