import type { Clock } from '../base/clock.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import type { AccessType, NodeDescription } from '../wire/syncml/ddf.ts';
import { describe, isPermanent } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { DmError } from './dm-error.ts';
import type { NodeStore, StoredNode } from './node-store.ts';
import { DmStatus } from './status.ts';
import type { NewNode, NodeView, TreeBranch } from './tree-branch.ts';
import { type Committed, UndoableMap } from './undoable-map.ts';
import type { NodePath } from './uri.ts';

/** What a stored branch may have besides its nodes. */
export interface BranchOptions {
  /** Management object identifier of the branch's root. */
  readonly type?: string;
  /** Source of the property TStamp. Without a clock, nodes have no time stamp. */
  readonly clock?: Clock;
  /** Largest number of nodes; `branchLimits.nodes` when absent. */
  readonly nodes?: number;
}

/** Largest number of nodes of a branch without a limit of its own, and largest size of a value and of a title. */
export const branchLimits = { nodes: 4096, valueBytes: 64 * 1024, titleBytes: 255 } as const;

/**
 * A branch whose nodes are stored values. The description of a management object says which nodes may exist. All nodes
 * are kept in memory; changes are written to the store when the outermost level is committed.
 */
export class StoredBranch implements TreeBranch {
  readonly #name: string;
  readonly #description: NodeDescription;
  readonly #store: NodeStore;
  readonly #clock: Clock | undefined;
  readonly #limit: number;
  readonly #children = new Map<string, Set<string>>();
  /** How values that are not stored are computed, by node. */
  readonly #derived = new Map<string, () => string>();
  /** Nodes that the disk did not take when they were planted. They are written with the next change of the branch. */
  readonly #unwritten = new Set<string>();
  readonly #nodes = new UndoableMap<StoredNode>((key, node) => this.#index(key, node !== undefined));

  /**
   * Loads the nodes of the branch.
   * @param name name of the branch below the root of the tree
   */
  constructor(
    name: string,
    description: NodeDescription,
    store: NodeStore,
    { type, clock, nodes = branchLimits.nodes }: BranchOptions = {},
  ) {
    this.#name = name;
    this.#description = description;
    this.#store = store;
    this.#clock = clock;
    this.#limit = nodes;
    this.#nodes.set(name, { path: name, format: 'node', ...(type !== undefined && { type }) });
    const stored = [...store.load(name)].toSorted((a, b) => (a.path < b.path ? -1 : 1));
    const plain: StoredNode[] = [];
    for (const node of stored) {
      const wrong = this.#misplaced(node);
      if (wrong === undefined) this.#nodes.set(node.path, node);
      else store.setAside?.(node.path, wrong);
      if (wrong === undefined && !node.secret && this.#isSecret(node)) plain.push({ ...node, secret: true });
    }
    if (plain.length > 0) store.seal?.(plain);
  }

  #isSecret({ path, value }: StoredNode): boolean {
    return value !== undefined && describe(this.#description, path.split('/').slice(1))?.secret === true;
  }

  /** Why a stored node cannot be part of the branch. Undefined when it can. */
  #misplaced({ path, format }: StoredNode): string | undefined {
    const described = describe(this.#description, path.split('/').slice(1));
    if (described && (described.format === 'node') !== (format === 'node'))
      return `the format is ${format}, but the description has ${described.format}`;
    const above = path.slice(0, Math.max(0, path.lastIndexOf('/')));
    const parent = above === '' ? undefined : this.#nodes.get(above);
    return above === '' || parent?.format === 'node' ? undefined : 'there is no interior node above it';
  }

  view(path: NodePath): NodeView | undefined {
    const key = this.#key(path);
    const node = this.#nodes.get(key);
    const description = describe(this.#description, path);
    if (!node || !description) return undefined;
    const { format, type, value, title = '', timeStamp, version = 0 } = node;
    return {
      format,
      access: description.access,
      permanent: isPermanent(this.#description, path),
      title,
      version,
      ...(timeStamp !== undefined && { timeStamp }),
      ...(type !== undefined && { type }),
      ...(format === 'node'
        ? { children: [...(this.#children.get(key) ?? [])] }
        : { value: this.#derived.get(key)?.() ?? value ?? '' }),
    };
  }

  /** Computes the value of a leaf whenever it is read, in place of what is stored. */
  derive(path: NodePath, value: () => string): void {
    this.#derived.set(this.#key(path), value);
  }

  potential(path: NodePath): { access: readonly AccessType[]; format: string } | undefined {
    return describe(this.#description, path);
  }

  add(path: NodePath, node: NewNode): void {
    this.#put(path, node);
  }

  replace(path: NodePath, node: NewNode): void {
    this.#put(path, node);
  }

  delete(path: NodePath): void {
    this.#change(() => {
      for (const key of this.#keysFrom(this.#key(path))) this.#nodes.set(key, undefined);
    });
  }

  rename(path: NodePath, name: string): void {
    const from = this.#key(path);
    const to = this.#key([...path.slice(0, -1), name]);
    this.#change(() => {
      for (const key of this.#keysFrom(from)) {
        const node = this.#nodes.get(key);
        if (!node) continue;
        this.#nodes.set(key, undefined);
        const moved = to + key.slice(from.length);
        this.#nodes.set(moved, { ...node, path: moved });
      }
    });
  }

  retitle(path: NodePath, title: string): void {
    if (Buffer.byteLength(title) > branchLimits.titleBytes)
      throw new DmError(
        DmStatus.RequestEntityTooLarge,
        `title of more than ${branchLimits.titleBytes} bytes`,
      );
    const node = this.#nodes.get(this.#key(path));
    if (node) this.#change(() => this.#nodes.set(node.path, { ...node, ...this.#stamp(node), title }));
  }

  begin(): void {
    this.#nodes.begin();
  }

  commit(): void {
    this.#write(this.#nodes.commit());
  }

  rollback(): void {
    this.#nodes.rollback();
  }

  /**
   * Writes a subtree in one step, in place of the nodes that were there. For the program itself: rights are not
   * checked.
   * @param isKept on a disk that takes no writes the nodes are in memory all the same, and are written with the next change. This
   *   is for what a start writes
   * @throws {DmError} 404 when the description has no such node
   * @throws {PosternError} `full`, and `storage` unless `isKept`
   */
  plant(path: NodePath, subtree: TndsNode, isKept = false): void {
    const root = this.#key(path);
    const put = flatten(root, subtree);
    for (const { path: key } of put)
      if (!describe(this.#description, key.split('/').slice(1)))
        throw new DmError(DmStatus.NotFound, `${key} is not described`);
    const present = this.#keysFrom(root);
    // What is the same is not written: a start changes nothing, so it needs no room on the disk.
    if (present.length === put.length && put.every((node) => isSameNode(this.#nodes.get(node.path), node)))
      return;
    this.#makeRoomFor(put.length);
    this.#change(() => {
      const kept = new Set(put.map(({ path: key }) => key));
      for (const key of present) if (!kept.has(key)) this.#nodes.set(key, undefined);
      for (const node of put) if (!isSame(this.#nodes.get(node.path), node)) this.#nodes.set(node.path, node);
    }, isKept);
  }

  /**
   * A node with all nodes below it, secrets included. For the program itself: rights are not checked.
   * @throws {DmError} 404
   */
  subtree(path: NodePath): TndsNode {
    const node = this.#nodes.get(this.#key(path));
    if (!node) throw new DmError(DmStatus.NotFound, `no node ${this.#key(path)}`);
    const { format, type, value } = node;
    return {
      name: path.at(-1) ?? this.#name,
      format,
      ...(type !== undefined && { type }),
      ...(format === 'node'
        ? { children: this.names(path).map((name) => this.subtree([...path, name])) }
        : { value: value ?? '' }),
    };
  }

  /** Names of a node's children; empty for a leaf or a node that does not exist. */
  names(path: NodePath): string[] {
    return [...(this.#children.get(this.#key(path)) ?? [])];
  }

  /** Value of a leaf as text. Undefined when there is no such leaf. */
  text(...path: string[]): string | undefined {
    const value = this.#nodes.get(this.#key(path))?.value;
    return value === undefined || typeof value === 'string' ? value : Buffer.from(value).toString();
  }

  #put(path: NodePath, node: NewNode): void {
    const description = describe(this.#description, path);
    if (!description) throw new DmError(DmStatus.NotFound, 'no such node is described');
    // A text may stand for any value. An interior node has none, but may be added without a format.
    const isTaken = node.format === 'chr' && (description.format !== 'node' || !node.value?.length);
    if (node.format !== description.format && !isTaken)
      throw new DmError(
        DmStatus.UnsupportedMediaType,
        `format ${node.format}, but the node has format ${description.format}`,
      );
    const value = checkedValue(description, node.value);
    const type = node.type ?? description.type;
    const key = this.#key(path);
    const known = this.#nodes.get(key);
    const title = node.title ?? known?.title;
    if (!known) this.#makeRoomFor(1);
    this.#change(() =>
      this.#nodes.set(key, {
        path: key,
        format: description.format,
        ...this.#stamp(known),
        ...(type !== undefined && { type }),
        ...(value !== undefined && { value }),
        ...(title !== undefined && { title }),
      }),
    );
  }

  /** The properties VerNo and TStamp after a change of a node. */
  #stamp(known: StoredNode | undefined): Pick<StoredNode, 'timeStamp' | 'version'> {
    const version = known ? ((known.version ?? 0) + 1) & 0xffff : 0;
    if (!this.#clock) return { version };
    const timeStamp = new Date(this.#clock.wall()).toISOString().replace(/[-:]|\.\d+/g, '');
    return { version, timeStamp };
  }

  #makeRoomFor(count: number): void {
    if (this.#nodes.size + count > this.#limit)
      throw new PosternError('full', `more than ${this.#limit} nodes in ${this.#name}`);
  }

  /** Writes all that `work` changes, or nothing when it throws. */
  #change(work: () => void, isKept = false): void {
    this.#nodes.begin();
    try {
      work();
    } catch (thrown) {
      this.#nodes.rollback();
      throw thrown;
    }
    this.#write(this.#nodes.commit(), isKept);
  }

  #write({ keys, undo }: Committed, isKept = false): void {
    if (keys.length === 0) return;
    const waiting = [...this.#unwritten];
    const put: StoredNode[] = [];
    const remove: string[] = [];
    for (const key of new Set([...waiting, ...keys])) {
      const node = this.#nodes.get(key);
      if (node) put.push({ ...node, secret: this.#isSecret(node) });
      else remove.push(key);
    }
    this.#unwritten.clear();
    try {
      this.#store.apply({ put, remove }, () => {
        if (!isKept) undo();
        for (const key of waiting) this.#unwritten.add(key);
      });
    } catch (thrown) {
      if (!isKept) throw thrown;
      if (asPosternError(thrown).code !== 'storage') {
        undo();
        throw thrown;
      }
      for (const key of keys) this.#unwritten.add(key);
    }
  }

  /** Adds a node to the children of its parent, or removes it. */
  #index(key: string, isThere: boolean): void {
    const cut = key.lastIndexOf('/');
    if (cut < 0) return;
    const parent = key.slice(0, cut);
    const name = key.slice(cut + 1);
    const names = this.#children.get(parent);
    if (isThere)
      if (names) names.add(name);
      else this.#children.set(parent, new Set([name]));
    else if (names?.delete(name) && names.size === 0) this.#children.delete(parent);
  }

  /** Keys of a node and of all nodes below it. */
  #keysFrom(root: string): string[] {
    return [...this.#nodes.keys()].filter((key) => key === root || key.startsWith(`${root}/`));
  }

  #key(path: NodePath): string {
    return [this.#name, ...path].join('/');
  }
}

/** Whether a stored node is the one that the program writes: without a title, and never changed by a command. */
function isSameNode(stored: StoredNode | undefined, { format, type, value }: StoredNode): boolean {
  if (!stored || stored.format !== format || stored.type !== type) return false;
  if (stored.title !== undefined || stored.timeStamp !== undefined || stored.version) return false;
  const octets = (one: StoredNode['value']) => (one === undefined ? undefined : Buffer.from(one as string));
  const [before, after] = [octets(stored.value), octets(value)];
  return before === undefined || after === undefined ? before === after : before.equals(after);
}

/** The nodes of a subtree, each with its path. */
function flatten(path: string, { format, type, value, children = [] }: TndsNode): StoredNode[] {
  const own = { path, format, ...(type !== undefined && { type }), ...(value !== undefined && { value }) };
  return [own, ...children.flatMap((child) => flatten(`${path}/${child.name}`, child))];
}

/** Whether a node is stored as it would be planted. A node that does not change is not written again. */
function isSame(known: StoredNode | undefined, { format, type, value }: StoredNode): boolean {
  if (!known || known.format !== format || known.type !== type) return false;
  if (known.title !== undefined || (known.version ?? 0) !== 0 || known.timeStamp !== undefined) return false;
  if (typeof known.value === 'object' && typeof value === 'object')
    return Buffer.compare(known.value, value) === 0;
  return known.value === value;
}

/**
 * The value that a node of this description is given.
 * @throws {DmError} 400 for a value of another format, 413
 */
function checkedValue({ format }: NodeDescription, value: NewNode['value']): NewNode['value'] {
  if (format === 'node' || format === 'null') return undefined;
  const given = value ?? '';
  const wrong = (why: string) => new DmError(DmStatus.BadRequest, why);
  if (Buffer.byteLength(given) > branchLimits.valueBytes)
    throw new DmError(DmStatus.RequestEntityTooLarge, `value of more than ${branchLimits.valueBytes} bytes`);
  if (format === 'int' && !/^[+-]?\d{1,10}$/.test(String(given))) throw wrong('not an int');
  if (format === 'bool' && given !== 'true' && given !== 'false') throw wrong('bool is true or false');
  if (format !== 'bin' && typeof given !== 'string') throw wrong('octets, but the node has text');
  return given;
}
