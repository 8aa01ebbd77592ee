import { DmError } from './dm-error.ts';
import { DmStatus } from './status.ts';

/** Bounds of a node URI, which DevDetail/URI tells the server: names, bytes of the URI, bytes of one name. */
export const uriLimits = { depth: 16, totalBytes: 512, segmentBytes: 128 } as const;

/**
 * Names of nodes from the root downwards, each in its escaped form. Empty for the root itself. Within a branch, the
 * names below the branch.
 */
export type NodePath = readonly string[];

/** The two parts of a node URI. */
export interface NodeUri {
  readonly path: NodePath;
  /** The text after `?`, such as `prop=ACL`. */
  readonly query?: string;
}

/**
 * Reads the URI of a node, such as `./DevInfo/DevId` or `DevInfo/DevId` (OMA DM tree and description 1.2.1, section
 * 7.2). Different escapes of the same name give the same path.
 * @throws {DmError} 404 for a text that is not the URI of a node, 414 beyond the bounds
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
      throw new DmError(DmStatus.NotFound, `not the URI of a node: ${text}`);
    const name = escapeName(unescapeName(segment));
    if (Buffer.byteLength(name) > uriLimits.segmentBytes)
      throw new DmError(DmStatus.UriTooLong, 'URI segment too long');
    return name;
  });
  return mark < 0 ? { path } : { path, query: text.slice(mark + 1) };
}

/** The URI of a node, such as `./DevInfo/DevId`. */
export const nodeUri = (path: NodePath): string => ['.', ...path].join('/');

/** A name as it is written in a URI: characters that have a meaning there are escaped (section 7.2.2). */
export const escapeName = (name: string): string =>
  name.replace(/[%/?#]/g, (character) => encodeURIComponent(character));

/**
 * The name that was escaped.
 * @throws {DmError} 404 for a wrong escape sequence
 */
export function unescapeName(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new DmError(DmStatus.NotFound, `not the name of a node: ${segment}`);
  }
}
