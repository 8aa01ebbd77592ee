import { asPosternError, PosternError } from '../base/errors.ts';
import type { Command, Item, Meta } from '../syncml/message.ts';
import { isNodeFormat } from '../syncml/tnds.ts';
import { DmError } from './dm-error.ts';
import { DmStatus } from './status.ts';
import type { ManagementTree, NewNode, NodeView } from './tree.ts';
import { nodeUri, parseNodeUri } from './uri.ts';

/** What one item of a command came to. `uri` is the item's target. */
export interface ItemOutcome {
  readonly status: number;
  readonly uri: string | undefined;
  /** What a Get found. */
  readonly result?: Item;
  /** For the log. */
  readonly reason?: string;
}

type TreeCommand = Extract<Command, { name: 'Get' | 'Add' | 'Replace' | 'Delete' | 'Exec' }>;

export const isTreeCommand = (command: Command): command is TreeCommand =>
  ['Get', 'Add', 'Replace', 'Delete', 'Exec'].includes(command.name);

/** Executes a server's command on the tree, item by item; each item succeeds or fails for itself. Never throws. */
export async function execute(
  tree: ManagementTree,
  command: TreeCommand,
  serverId: string,
): Promise<ItemOutcome[]> {
  const outcomes: ItemOutcome[] = [];
  for (const item of command.items) {
    const uri = item.target?.locUri;
    try {
      if (uri === undefined) throw new PosternError('malformed', 'item without a target');
      outcomes.push({ uri, ...(await executeItem(tree, command, item, uri, serverId)) });
    } catch (thrown) {
      const error = asPosternError(thrown);
      outcomes.push({ uri, status: error.dmStatus, reason: error.message });
    }
  }
  if (outcomes.length === 0)
    outcomes.push({ uri: undefined, status: DmStatus.BadRequest, reason: 'command without an item' });
  return outcomes;
}

async function executeItem(
  tree: ManagementTree,
  command: TreeCommand,
  item: Item,
  uri: string,
  serverId: string,
): Promise<{ status: number; result?: Item }> {
  const { path, query } = parseNodeUri(uri);
  if (query !== undefined) return await onProperty(tree, command.name, path, query, item, serverId);
  const meta: Meta = { ...command.meta, ...item.meta };
  switch (command.name) {
    case 'Get':
      return { status: DmStatus.Ok, result: resultOf(path, tree.get(path, serverId)) };
    case 'Add':
      await tree.add(path, newNode(item, meta), serverId);
      return { status: DmStatus.Ok };
    case 'Replace':
      await tree.replace(path, newNode(item, meta), serverId);
      return { status: DmStatus.Ok };
    case 'Delete':
      await tree.delete(path, serverId);
      return { status: DmStatus.Ok };
    case 'Exec':
      return { status: await tree.exec(path, newNode(item, meta), command.correlator, serverId) };
  }
}

/** Properties of a node are addressed by `?prop=` (OMA DM tree and description 1.2.1, section 7.7). */
async function onProperty(
  tree: ManagementTree,
  name: TreeCommand['name'],
  path: readonly string[],
  query: string,
  item: Item,
  serverId: string,
): Promise<{ status: number; result?: Item }> {
  const property = query.startsWith('prop=') ? query.slice(5) : '';
  const view = tree.get(path, serverId);
  const text = (data: string) => ({
    status: DmStatus.Ok,
    result: { source: { locUri: `${nodeUri(path)}?${query}` }, meta: { format: 'chr' }, data },
  });
  if (property === 'ACL' && name === 'Replace') {
    tree.replaceAcl(path, String(item.data ?? ''), serverId);
    return { status: DmStatus.Ok };
  }
  if (!['ACL', 'Format', 'Name', 'Type'].includes(property))
    throw new DmError(DmStatus.OptionalFeatureNotSupported, `no property ${query}`);
  if (name !== 'Get') throw new DmError(DmStatus.CommandNotAllowed, `no ${name} on ${query}`);
  switch (property) {
    case 'ACL':
      return text(tree.getAcl(path, serverId));
    case 'Format':
      return text(view.format);
    case 'Name':
      return text(path.at(-1) ?? '.');
    default:
      return text(view.type ?? '');
  }
}

function newNode({ data }: Item, meta: Meta): NewNode {
  const format = meta.format ?? (data instanceof Uint8Array ? 'bin' : 'chr');
  if (!isNodeFormat(format)) throw new DmError(DmStatus.UnsupportedMediaType, `no format ${format}`);
  return {
    format,
    ...(meta.type !== undefined && { type: meta.type }),
    ...(data !== undefined && { value: data }),
  };
}

function resultOf(path: readonly string[], view: NodeView): Item {
  const meta = { format: view.format, ...(view.type !== undefined && { type: view.type }) };
  const data = view.format === 'node' ? (view.children ?? []).join('/') : (view.value ?? '');
  return { source: { locUri: nodeUri(path) }, meta, data };
}
