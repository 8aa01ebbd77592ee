import { PosternError } from '../../base/errors.ts';

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/**
 * Text as it stands in XML 1.0.
 * @throws {PosternError} `malformed` for characters that have no form there
 */
export function escapeXml(value: string): string {
  // Control characters cannot stand in XML 1.0 at all.
  const unfit = invalidXml(value);
  if (unfit) throw new PosternError('malformed', `text with character U+${unfit} has no XML form`);
  return value.replace(/[&<>"]/g, (character) => entities[character]!).replaceAll('\r', '&#13;');
}

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
