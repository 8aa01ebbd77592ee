import { DmError } from './dm-error.ts';
import { DmStatus } from './status.ts';
import type { ManagementTree } from './tree.ts';
import type { NodeView } from './tree-branch.ts';
import { escapeName, type NodePath, unescapeName } from './uri.ts';

/** MIME type of a leaf; identifier of a management object at its root (section 7.7.2); otherwise empty. */
export const typeOf = ({ type, format }: Pick<NodeView, 'format' | 'type'>): string =>
  type ?? (format === 'node' || format === 'null' ? '' : (mimeTypes[format] ?? 'text/plain'));

const mimeTypes: Readonly<Record<string, string>> = { bin: 'application/octet-stream', xml: 'text/xml' };

/** Reads each property from a node. Undefined when the node's branch does not keep the property. */
const readers: Readonly<Record<string, (view: NodeView, path: NodePath) => string | undefined>> = {
  Format: ({ format }) => format,
  Name: (_, path) => unescapeName(path.at(-1) ?? '.'),
  Size: ({ format, value }) => (format === 'node' ? undefined : String(Buffer.byteLength(value ?? ''))),
  Title: ({ title }) => title,
  TStamp: ({ timeStamp }) => timeStamp,
  Type: typeOf,
  VerNo: ({ version }) => version?.toString(),
};

/** Name of the property in a query such as `prop=ACL`. */
const propertyOf = (query: string): string => {
  const name = query.startsWith('prop=') ? query.slice('prop='.length) : '';
  if (name === 'ACL' || Object.hasOwn(readers, name)) return name;
  throw new DmError(DmStatus.OptionalFeatureNotSupported, `no property ${query}`);
};

/**
 * Reads a property of a node (OMA DM tree and description 1.2.1, section 7.7).
 * @throws {DmError} 404, 405, 406 for an unknown property or one that this node does not have, 425
 */
export function getProperty(tree: ManagementTree, path: NodePath, query: string, serverId: string): string {
  const name = propertyOf(query);
  if (name === 'ACL') return tree.getAcl(path, serverId);
  // A node whose value cannot be read, such as a secret, has readable properties. So `tree.get` is too strict here.
  const view = tree.view(path);
  if (!view) throw new DmError(DmStatus.NotFound, 'no such node');
  if (!tree.permits(path, 'Get', serverId)) throw new DmError(DmStatus.PermissionDenied, 'no right to Get');
  if (name === 'Size' && !view.access.includes('Get'))
    throw new DmError(DmStatus.CommandNotAllowed, 'the size of a secret is not told');
  const value = readers[name]?.(view, path);
  if (value === undefined) throw new DmError(DmStatus.OptionalFeatureNotSupported, `no ${name} is kept here`);
  return value;
}

/**
 * Changes a property of a node (OMA DM tree and description 1.2.1, section 7.7). ACL, Name and Title can be changed;
 * the other properties follow from the node.
 * @throws {DmError} 400, 404, 405 for another property, 406 for an unknown one, 413, 418, 425
 */
export function replaceProperty(
  tree: ManagementTree,
  path: NodePath,
  query: string,
  value: string,
  serverId: string,
): void {
  switch (propertyOf(query)) {
    case 'ACL':
      tree.replaceAcl(path, value, serverId);
      break;
    case 'Name':
      if (value === '') throw new DmError(DmStatus.BadRequest, 'a node without a name');
      tree.rename(path, escapeName(value), serverId);
      break;
    case 'Title':
      tree.retitle(path, value, serverId);
      break;
    default:
      throw new DmError(DmStatus.CommandNotAllowed, `${query} cannot be changed`);
  }
}
