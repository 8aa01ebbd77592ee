import type { Item } from '../wire/syncml/message.ts';
import { encodeTnds, TndsMediaType, type TndsNode } from '../wire/syncml/tnds.ts';
import { DmError } from './dm-error.ts';
import { typeOf } from './properties.ts';
import { DmStatus } from './status.ts';
import type { ManagementTree } from './tree.ts';
import type { NodeView } from './tree-branch.ts';
import { type NodePath, nodeUri, unescapeName } from './uri.ts';

/**
 * Largest number of nodes of one TNDS object. Struct and StructData send node by node; only the number of messages of a
 * session bounds them.
 */
const nodeBound = 4096;

/**
 * Properties that `+` adds to `?list=TNDS` and `-` leaves out. Type and Value are included by default. Format is always, because
 * the DTD has no RTProperties without it.
 */
const tndsProperties = ['ACL', 'Format', 'Title', 'Type', 'Value'];

/**
 * Gets a node and all nodes below it that the server may read (OMA DM tree and description serialization 1.2, section
 * 8.4). `list=Struct` returns an item for each node, without values. `list=StructData` returns the same with values.
 * `list=TNDS` returns one TNDS object. The first two are read lazily, while they are sent, so a subtree of any size
 * needs little memory.
 * @throws {DmError} 404, 405, 406 for an unknown kind of list, 413, 425
 */
export function getList(
  tree: ManagementTree,
  path: NodePath,
  query: string,
  serverId: string,
): Iterable<Item> {
  const kind = query.slice('list='.length);
  const view = tree.get(path, serverId);
  if (kind === 'Struct' || kind === 'StructData')
    return {
      [Symbol.iterator]: () =>
        walk(tree, { path, view }, serverId).map(({ path: at, view: found }) => ({
          source: { locUri: nodeUri(at) },
          meta: { format: found.format, ...(found.type !== undefined && { type: found.type }) },
          ...(kind === 'StructData' && found.format !== 'node' && { data: found.value ?? '' }),
        })),
    };
  const wanted = wantedProperties(kind);
  if (!wanted) throw new DmError(DmStatus.OptionalFeatureNotSupported, `no list ${kind}`);
  const budget = { nodes: nodeBound };
  const root = subtree(tree, path, view, serverId, wanted, budget);
  const parent = path.slice(0, -1);
  return [
    {
      source: { locUri: nodeUri(path) },
      meta: { format: 'xml', type: TndsMediaType.Xml },
      data: encodeTnds({ ...(parent.length > 0 && { path: nodeUri(parent) }), root }),
    },
  ];
}

/** The properties that a query such as `TNDS+ACL-Value` asks for. Undefined for an unknown kind of list. */
function wantedProperties(kind: string): ReadonlySet<string> | undefined {
  const [, changes] = /^TNDS((?:[+-][A-Za-z]+)*)$/.exec(kind) ?? [];
  if (changes === undefined) return undefined;
  const wanted = new Set(['Format', 'Type', 'Value']);
  for (const [, sign, name = ''] of changes.matchAll(/([+-])([A-Za-z]+)/g)) {
    if (!tndsProperties.includes(name)) return undefined;
    if (sign === '+') wanted.add(name);
    else wanted.delete(name);
  }
  return wanted;
}

interface Found {
  readonly path: NodePath;
  readonly view: NodeView;
}

function* walk(tree: ManagementTree, found: Found, serverId: string): Generator<Found> {
  yield found;
  for (const child of readable(tree, found, serverId)) yield* walk(tree, child, serverId);
}

/** The children that the server may read. Other children, and children deleted in the meantime, are left out. */
function* readable(tree: ManagementTree, { path, view }: Found, serverId: string): Generator<Found> {
  for (const name of view.children ?? []) {
    const at = [...path, name];
    const child = tree.view(at);
    if (child?.access.includes('Get') && tree.permits(at, 'Get', serverId)) yield { path: at, view: child };
  }
}

function subtree(
  tree: ManagementTree,
  path: NodePath,
  view: NodeView,
  serverId: string,
  wanted: ReadonlySet<string>,
  budget: { nodes: number },
): TndsNode {
  if (--budget.nodes < 0) throw new DmError(DmStatus.RequestEntityTooLarge, 'a subtree of too many nodes');
  const { format, value, title } = view;
  const type = typeOf(view);
  const acl = wanted.has('ACL') ? tree.getAcl(path, serverId) : '';
  return {
    name: unescapeName(path.at(-1) ?? '.'),
    format,
    ...(wanted.has('Type') && type !== '' && { type }),
    ...(acl !== '' && { acl }),
    ...(wanted.has('Title') && title && { title }),
    ...(format === 'node'
      ? {
          children: [...readable(tree, { path, view }, serverId)].map((child) =>
            subtree(tree, child.path, child.view, serverId, wanted, budget),
          ),
        }
      : { ...(wanted.has('Value') && { value: value ?? '' }) }),
  };
}
