import { PosternError } from '../../base/errors.ts';

/** Whether the text is base64 with padding, not empty and without white space. */
export const isBase64 = (text: string): boolean =>
  text.length > 0 && text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text);

/**
 * Reads base64 with padding. White space is ignored.
 * @throws {PosternError} `malformed`
 */
export function fromBase64(value: string): Uint8Array {
  const compact = value.replace(/\s+/g, '');
  if (compact !== '' && !isBase64(compact)) throw new PosternError('malformed', 'not base64');
  return Buffer.from(compact, 'base64');
}
