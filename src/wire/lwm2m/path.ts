import { PosternError } from '../../base/errors.ts';

/**
 * IDs of object, object instance, resource and resource instance, in this order. A path has 0 to 4 of them (LwM2M core
 * 1.1, section 7.3).
 */
export type Path = readonly number[];

/** The largest ID; 65535 is reserved (section 7.3). */
const largest = 65_534;

/** Characters of a path as text. A base name is read again for each record below it, so a long one would cost much. */
const longest = 64;

/** Whether a part of a path is an ID. */
export const isId = (part: string): boolean => /^\d{1,5}$/.test(part) && Number(part) <= largest;

/** The text form of a path, such as `/3/0/9`. */
export const pathText = (path: Path): string => `/${path.join('/')}`;

/**
 * Reads a path such as `/3/0/9`, with or without the first slash.
 * @throws {PosternError} `malformed`
 */
export function parsePath(text: string): Path {
  if (text.length > longest)
    throw new PosternError('malformed', `an LwM2M path of more than ${longest} characters`);
  const parts = text.split('/').filter((part) => part !== '');
  if (parts.length > 4 || !parts.every(isId))
    throw new PosternError('malformed', `not an LwM2M path: ${text.slice(0, 64)}`);
  return parts.map(Number);
}

/** Whether `path` is `ancestor` or a path inside it. */
export const isBelow = (path: Path, ancestor: Path): boolean =>
  path.length >= ancestor.length && ancestor.every((id, at) => path[at] === id);
