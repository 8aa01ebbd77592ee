import { asPosternError, PosternError } from '../base/errors.ts';
import {
  type Command,
  type CommandOf,
  type Composite,
  type Item,
  isCompositeCommand,
  type Meta,
} from '../wire/syncml/message.ts';
import { isNodeFormat, isTndsType } from '../wire/syncml/tnds.ts';
import { DmError } from './dm-error.ts';
import { getList } from './lists.ts';
import { getProperty, replaceProperty } from './properties.ts';
import { DmStatus, isOk, isUserInteraction } from './status.ts';
import type { ManagementTree } from './tree.ts';
import type { NewNode, NodeView } from './tree-branch.ts';
import { type NodePath, nodeUri, parseNodeUri } from './uri.ts';

/** Outcome of one item of a command. `uri` is the item's target. */
export interface ItemOutcome {
  readonly status: number;
  readonly uri: string | undefined;
  /** What a Get found. A subtree is read while its items are sent. */
  readonly results?: Iterable<Item>;
  /** What the user said to a question. */
  readonly said?: readonly string[];
  /** Why the item failed, for the log. */
  readonly reason?: string;
}

/** Outcome of one command, with an entry for each of its items. */
export interface CommandOutcome {
  readonly command: Command;
  readonly items: readonly ItemOutcome[];
}

/** Commands on nodes of the tree. */
export type TreeCommandName = 'Get' | 'Add' | 'Replace' | 'Delete' | 'Copy' | 'Exec';
export type TreeCommand = CommandOf<TreeCommandName>;

const treeCommands: ReadonlySet<string> = new Set(['Get', 'Add', 'Replace', 'Delete', 'Copy', 'Exec']);
export const isTreeCommand = (command: Command): command is Extract<Command, { name: TreeCommandName }> =>
  treeCommands.has(command.name);

/**
 * What a user answered (OMA DM protocol 1.2.1, section 10.2): a status, and the text that was typed, or the numbers of the
 * choices, from 1.
 */
export interface UserAnswer {
  readonly status: number;
  readonly said?: readonly string[];
}

export interface Execution {
  readonly tree: ManagementTree;
  /** ServerID of the server whose rights are checked. */
  readonly serverId: string;
  /** Answers a user interaction (alerts 1100 to 1104). Absent where there is no user. */
  readonly interact?: ((alert: CommandOf<'Alert'>) => UserAnswer) | undefined;
}

/**
 * Executes a server's command. Each item succeeds or fails on its own, except within Atomic. A failed item has an error
 * status; it does not throw. Returns the outcome of the command, followed by the outcomes of the commands within it, in
 * the order in which their statuses are sent.
 */
export async function execute(execution: Execution, command: Command): Promise<CommandOutcome[]> {
  if (isCompositeCommand(command))
    return command.name === 'Sequence'
      ? await sequence(execution, command)
      : await atomic(execution, command);
  return [{ command, items: await single(execution, command) }];
}

async function single(execution: Execution, command: Command): Promise<ItemOutcome[]> {
  if (isTreeCommand(command)) return await onItems(execution, command);
  if (command.name === 'Alert') return [{ uri: undefined, ...interaction(execution, command) }];
  const status =
    command.name === 'Unknown' ? DmStatus.OptionalFeatureNotSupported : DmStatus.CommandNotAllowed;
  return [{ uri: undefined, status }];
}

/** A device without a user answers user interactions with 406 (OMA DM protocol 1.2.1, section 10). */
const interaction = ({ interact }: Execution, alert: CommandOf<'Alert'>): UserAnswer =>
  isUserInteraction(alert.data) && interact
    ? interact(alert)
    : { status: DmStatus.OptionalFeatureNotSupported };

/**
 * Executes commands in order. When the user does not agree to a question, the commands after it are not executed (215).
 */
async function sequence(execution: Execution, composite: Composite): Promise<CommandOutcome[]> {
  const outcomes: CommandOutcome[] = [
    { command: composite, items: [{ uri: undefined, status: DmStatus.Ok }] },
  ];
  let stopped = false;
  for (const command of composite.commands) {
    const done: CommandOutcome[] = stopped
      ? unexecuted(command, DmStatus.NotExecuted)
      : await execute(execution, command);
    // The commands that follow may change what a list shows.
    outcomes.push(...done.map((each) => ({ ...each, items: each.items.map(asRead) })));
    stopped ||=
      command.name === 'Alert' && done.some(({ items }) => items.some(({ status }) => !isOk(status)));
  }
  return outcomes;
}

const asRead = (item: ItemOutcome): ItemOutcome =>
  item.results ? { ...item, results: [...item.results] } : item;

/**
 * Executes all commands or none: after a failure the earlier changes are undone (representation protocol, section
 * 6.6.3).
 */
async function atomic(
  { tree, serverId, interact }: Execution,
  composite: Composite,
): Promise<CommandOutcome[]> {
  const inner: CommandOutcome[] = [];
  const ofAtomic = (status: number): CommandOutcome => ({
    command: composite,
    items: [{ uri: undefined, status }],
  });
  tree.begin();
  let failedAt = -1;
  for (const [at, command] of composite.commands.entries()) {
    const done: CommandOutcome[] = isForbiddenInAtomic(command)
      ? unexecuted(command, DmStatus.CommandFailed)
      : await execute({ tree, serverId, interact }, command);
    inner.push(...done);
    if (done.some(({ items }) => items.some(({ status }) => !isOk(status)))) {
      failedAt = at;
      break;
    }
  }
  if (failedAt < 0) {
    tree.commit();
    return [ofAtomic(DmStatus.Ok), ...inner];
  }
  tree.rollback();
  const rest = composite.commands
    .slice(failedAt + 1)
    .flatMap((command) => unexecuted(command, DmStatus.NotExecuted));
  const undone = inner.map(({ command, items }) => ({
    command,
    items: items.map((item) =>
      isOk(item.status) ? { ...item, status: statusAfterRollback(tree, command, item), results: [] } : item,
    ),
  }));
  return [ofAtomic(DmStatus.AtomicFailed), ...undone, ...rest];
}

/** Section 6.6.3: Atomic may contain no Get, since a Get cannot be undone, and no other Atomic. Nor may a Sequence in it. */
const isForbiddenInAtomic = (command: Command): boolean =>
  command.name === 'Get' ||
  command.name === 'Atomic' ||
  (isCompositeCommand(command) && command.commands.some(isForbiddenInAtomic));

/** Status of an item that succeeded before its Atomic failed: 216 when it was undone, 516 when it cannot be undone. */
function statusAfterRollback(tree: ManagementTree, command: Command, { uri }: ItemOutcome): number {
  const isUndone =
    isCompositeCommand(command) ||
    (isTreeCommand(command) && command.name !== 'Exec' && tree.canUndo(parseNodeUri(uri ?? '').path));
  return isUndone ? DmStatus.RolledBack : DmStatus.AtomicRollbackFailed;
}

/** Outcomes of a command, and of the commands within it, that were not executed. */
function unexecuted(command: Command, status: number): CommandOutcome[] {
  const own = { command, items: [{ uri: undefined, status }] };
  return isCompositeCommand(command)
    ? [own, ...command.commands.flatMap((each) => unexecuted(each, DmStatus.NotExecuted))]
    : [own];
}

async function onItems(execution: Execution, command: TreeCommand): Promise<ItemOutcome[]> {
  const outcomes: ItemOutcome[] = [];
  for (const item of command.items) {
    const uri = item.target?.locUri;
    try {
      if (uri === undefined) throw new PosternError('malformed', 'item without a target');
      outcomes.push({ uri, ...(await executeItem(execution, command, item, uri)) });
    } catch (thrown) {
      const error = asPosternError(thrown);
      outcomes.push({ uri, status: error.dmStatus, reason: error.message });
    }
  }
  if (outcomes.length === 0)
    outcomes.push({ uri: undefined, status: DmStatus.BadRequest, reason: 'command without an item' });
  return outcomes;
}

type Done = Pick<ItemOutcome, 'status' | 'results'>;
const done: Done = { status: DmStatus.Ok };

async function executeItem(
  { tree, serverId }: Execution,
  command: TreeCommand,
  item: Item,
  uri: string,
): Promise<Done> {
  const { path, query } = parseNodeUri(uri);
  const meta: Meta = { ...command.meta, ...item.meta };
  if (query !== undefined) return await onQuery(tree, command, item, path, query, serverId);
  switch (command.name) {
    case 'Get':
      return { status: DmStatus.Ok, results: [resultOf(path, tree.get(path, serverId))] };
    case 'Add':
      await tree.atomically(() => tree.add(path, newNode(item, meta), serverId));
      return done;
    case 'Replace':
      await tree.replace(path, newNode(item, meta), serverId);
      return done;
    case 'Delete':
      await tree.delete(path, serverId);
      return done;
    case 'Copy': {
      const from = item.source?.locUri;
      if (from === undefined) throw new PosternError('malformed', 'a Copy without a source');
      await tree.atomically(() => tree.copy(parseNodeUri(from).path, path, serverId));
      return done;
    }
    case 'Exec':
      return {
        status: await tree.exec(
          path,
          newNode(item, meta),
          (command as CommandOf<'Exec'>).correlator,
          serverId,
        ),
      };
  }
}

/** Executes a command on a property (`?prop=NAME`) or on a subtree (`?list=KIND`). */
async function onQuery(
  tree: ManagementTree,
  { name }: TreeCommand,
  { data }: Item,
  path: NodePath,
  query: string,
  serverId: string,
): Promise<Done> {
  if (query.startsWith('list=')) {
    if (name !== 'Get') throw new DmError(DmStatus.CommandNotAllowed, `no ${name} on ${query}`);
    return { status: DmStatus.Ok, results: getList(tree, path, query, serverId) };
  }
  if (name === 'Replace') {
    replaceProperty(tree, path, query, typeof data === 'string' ? data : '', serverId);
    return done;
  }
  const value = getProperty(tree, path, query, serverId);
  if (name !== 'Get') throw new DmError(DmStatus.CommandNotAllowed, `no ${name} on ${query}`);
  const source = { locUri: `${nodeUri(path)}?${query}` };
  return { status: DmStatus.Ok, results: [{ source, meta: { format: 'chr' }, data: value }] };
}

function newNode({ data }: Item, meta: Meta): NewNode {
  // A TNDS object contains the formats of its nodes.
  const given = isTndsType(meta.type) ? 'xml' : meta.format;
  const format = given ?? (data instanceof Uint8Array ? 'bin' : 'chr');
  if (!isNodeFormat(format)) throw new DmError(DmStatus.UnsupportedMediaType, `no format ${format}`);
  return {
    format,
    ...(meta.type !== undefined && { type: meta.type }),
    ...(data !== undefined && { value: data }),
  };
}

function resultOf(path: NodePath, view: NodeView): Item {
  const meta = { format: view.format, ...(view.type !== undefined && { type: view.type }) };
  const data = view.format === 'node' ? (view.children ?? []).join('/') : (view.value ?? '');
  return { source: { locUri: nodeUri(path) }, meta, data };
}
