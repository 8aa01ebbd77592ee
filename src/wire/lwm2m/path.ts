import { PosternError } from '../../base/errors.ts';

/** Object, object instance, resource and resource instance ID, as many as are given (LwM2M core 1.1, section 7.3). */
export type Path = readonly number[];

/** The largest ID; 65535 is reserved (section 7.3). */
const largest = 65_534;

export const pathText = (path: Path): string => `/${path.join('/')}`;

/**
 * Reads `/3/0/9`, with or without its first slash.
 * @throws {PosternError} `malformed`
 */
export function parsePath(text: string): Path {
  const parts = text.split('/').filter((part) => part !== '');
  const path = parts.map((part) => (/^\d{1,5}$/.test(part) ? Number(part) : Number.NaN));
  if (path.length > 4 || !path.every((id) => id <= largest))
    throw new PosternError('malformed', `no path of an object, instance or resource: ${text.slice(0, 64)}`);
  return path;
}

export const isBelow = (path: Path, ancestor: Path): boolean =>
  path.length >= ancestor.length && ancestor.every((id, at) => path[at] === id);
