import { DmError } from './dm-error.ts';
import { DmStatus } from './status.ts';

/** Bounds that DevDetail/URI tells the server. */
export const uriLimits = { depth: 16, totalBytes: 512, segmentBytes: 128 } as const;

/** Names of nodes from the root downwards, or from a branch downwards, each in its escaped form; empty for the root itself. */
export type NodePath = readonly string[];

export interface NodeUri {
  readonly path: NodePath;
  /** What stands behind `?`, such as `prop=ACL`. */
  readonly query?: string;
}

/**
 * Reads the URI of a node, `./DevInfo/DevId` or `DevInfo/DevId` (OMA DM tree and description 1.2.1, section 7.2). Two
 * spellings of one name come to one path.
 * @throws {DmError} 404 for no URI of a node, 414 beyond the bounds
 */
export function parseNodeUri(text: string): NodeUri {
  if (Buffer.byteLength(text) > uriLimits.totalBytes) throw new DmError(DmStatus.UriTooLong, 'URI too long');
  const mark = text.indexOf('?');
  const plain = mark < 0 ? text : text.slice(0, mark);
  const segments = plain.replace(/^\.(\/|$)/, '').split('/');
  if (segments.at(-1) === '' && segments.length === 1) segments.pop();
  if (segments.length > uriLimits.depth) throw new DmError(DmStatus.UriTooLong, 'URI too deep');
  const path = segments.map((segment) => {
    if (segment === '' || segment === '.' || segment === '..')
      throw new DmError(DmStatus.NotFound, `no URI of a node: ${text}`);
    const name = escapeName(unescapeName(segment));
    if (Buffer.byteLength(name) > uriLimits.segmentBytes)
      throw new DmError(DmStatus.UriTooLong, 'URI segment too long');
    return name;
  });
  return mark < 0 ? { path } : { path, query: text.slice(mark + 1) };
}

export const nodeUri = (path: NodePath): string => ['.', ...path].join('/');

/** A name as it stands in a URI: what has a meaning there is escaped (section 7.2.2). */
export const escapeName = (name: string): string =>
  name.replace(/[%/?#]/g, (character) => encodeURIComponent(character));

/** @throws {DmError} 404 for an escape that is none */
export function unescapeName(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new DmError(DmStatus.NotFound, `no name of a node: ${segment}`);
  }
}
