import { ownText } from './own-bytes.ts';

/** What XML 1.0 has no form for (section 2.2): most control characters, two non-characters, and halves of surrogate pairs. */
const unfit = /[^\t\n\r\u0020-\ufffd\u{10000}-\u{10ffff}]/u;
const everyUnfit = new RegExp(unfit, 'gu');

/** Whether XML 1.0 can hold each character of a text. */
export const fitsXml = (text: string): boolean => text.isWellFormed() && !unfit.test(text);

/** The text with U+FFFD in place of each character that XML 1.0 cannot hold. */
export const forXml = (text: string): string =>
  fitsXml(text) ? text : text.toWellFormed().replace(everyUnfit, '\ufffd');

/** Bytes of a text that a device says of itself: its manufacturer, its model, a version. */
export const identityBytes = 128;

/**
 * A text that a device says of itself, made fit to be stored, shown and reported: one line of at most `bytes` bytes of UTF-8
 * that XML 1.0 can hold. Each character that does not fit becomes U+FFFD. A text that is too long is cut between characters.
 */
export function presentable(text: string, bytes = identityBytes): string {
  // A string longer than its bound in code units is longer in bytes too, so a huge one is cut before it is looked at.
  const clean = forXml(text.slice(0, bytes)).replace(/[\t\n\r\u007f-\u009f\u2028\u2029]/g, '\ufffd');
  if (Buffer.byteLength(clean) <= bytes) return ownText(clean);
  let size = 0;
  let end = 0;
  for (const character of clean) {
    size += Buffer.byteLength(character);
    if (size > bytes) break;
    end += character.length;
  }
  return ownText(clean.slice(0, end));
}
