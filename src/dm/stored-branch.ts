import { PosternError } from '../base/errors.ts';
import type { AccessType, NodeDescription } from '../syncml/ddf.ts';
import { describe } from '../syncml/ddf.ts';
import { isNodeFormat, type TndsNode } from '../syncml/tnds.ts';
import { DmError } from './dm-error.ts';
import { DmStatus } from './status.ts';
import type { NewNode, NodeView, TreeBranch } from './tree.ts';

/** A stored node: `path` is below the tree's root, its segments joined by `/`. Interior nodes have no value. */
export interface StoredNode {
  readonly path: string;
  readonly format: NewNode['format'];
  readonly type?: string;
  readonly value?: string | Uint8Array;
}

/** Where the nodes of a branch are kept. Reads come from memory, so `load` is called once. */
export interface NodeStore {
  load(branch: string): Iterable<Omit<StoredNode, 'format'> & { readonly format: string }>;
  /** Makes all changes, or none. */
  apply(changes: { readonly put?: readonly StoredNode[]; readonly remove?: readonly string[] }): void;
}

interface Kept extends StoredNode {
  readonly children: Set<string>;
}

/** Nodes that one branch may hold, and bytes of one value. */
const limits = { nodes: 4096, valueBytes: 64 * 1024 } as const;

/** A branch whose nodes are values, shaped by the description of a management object. */
export class StoredBranch implements TreeBranch {
  readonly #name: string;
  readonly #description: NodeDescription;
  readonly #store: NodeStore;
  readonly #nodes = new Map<string, Kept>();
  /** Hears of the path below the branch that a command changed. */
  readonly changed = new Set<(path: readonly string[]) => void>();

  constructor(name: string, description: NodeDescription, store: NodeStore, type?: string) {
    this.#name = name;
    this.#description = description;
    this.#store = store;
    this.#keep({ path: name, format: 'node', ...(type !== undefined && { type }) });
    const stored = [...store.load(name)].toSorted((a, b) => (a.path < b.path ? -1 : 1));
    for (const { format, ...node } of stored) {
      if (!isNodeFormat(format)) throw new PosternError('internal', `stored node of format ${format}`);
      this.#keep({ ...node, format });
    }
  }

  view(path: readonly string[]): NodeView | undefined {
    const node = this.#nodes.get(this.#key(path));
    const description = describe(this.#description, path);
    if (!node || !description) return undefined;
    const { format, type, value, children } = node;
    return {
      format,
      access: description.access,
      ...(type !== undefined && { type }),
      ...(format === 'node' ? { children: [...children] } : { value: value ?? '' }),
    };
  }

  potential(path: readonly string[]): readonly AccessType[] | undefined {
    return describe(this.#description, path)?.access;
  }

  add(path: readonly string[], node: NewNode): void {
    this.#put(path, node);
  }

  replace(path: readonly string[], node: NewNode): void {
    this.#put(path, node);
  }

  delete(path: readonly string[]): void {
    const keys = [...this.#nodes.keys()].filter(
      (key) => key === this.#key(path) || key.startsWith(`${this.#key(path)}/`),
    );
    this.#store.apply({ remove: keys });
    for (const key of keys) this.#nodes.delete(key);
    this.#nodes.get(this.#key(path.slice(0, -1)))?.children.delete(path.at(-1) ?? '');
    this.#tell(path);
  }

  /** Puts a whole subtree in one step, in place of what was there: for what the program itself writes. */
  plant(path: readonly string[], subtree: TndsNode): void {
    const put = flatten(this.#key(path), subtree);
    for (const { path: key } of put) {
      const below = key.split('/').slice(1);
      if (!describe(this.#description, below))
        throw new DmError(DmStatus.NotFound, `${key} is not described`);
    }
    this.#makeRoomFor(put.length);
    const remove = [...this.#nodes.keys()].filter((key) => key.startsWith(`${this.#key(path)}/`));
    this.#store.apply({ remove, put });
    for (const key of remove) this.#nodes.delete(key);
    for (const node of put) this.#keep(node);
    this.#tell(path);
  }

  /** A node with all below it, secrets as well: for the program itself. */
  subtree(path: readonly string[]): TndsNode {
    const node = this.#nodes.get(this.#key(path));
    if (!node) throw new DmError(DmStatus.NotFound, `no node ${this.#key(path)}`);
    const { format, type, value, children } = node;
    return {
      name: path.at(-1) ?? this.#name,
      format,
      ...(type !== undefined && { type }),
      ...(format === 'node'
        ? { children: [...children].map((name) => this.subtree([...path, name])) }
        : { value: value ?? '' }),
    };
  }

  /** A leaf's value as text. */
  text(...path: string[]): string | undefined {
    const value = this.#nodes.get(this.#key(path))?.value;
    return value === undefined || typeof value === 'string' ? value : Buffer.from(value).toString();
  }

  #put(path: readonly string[], node: NewNode): void {
    const description = describe(this.#description, path);
    if (!description) throw new DmError(DmStatus.NotFound, 'no such node is described');
    if (node.format !== description.format && node.format !== 'chr')
      throw new DmError(
        DmStatus.UnsupportedMediaType,
        `format ${node.format} where ${description.format} stands`,
      );
    const value = checkedValue(description, node.value);
    const type = node.type ?? description.type;
    const stored: StoredNode = {
      path: this.#key(path),
      format: description.format,
      ...(type !== undefined && { type }),
      ...(value !== undefined && { value }),
    };
    if (!this.#nodes.has(stored.path)) this.#makeRoomFor(1);
    this.#store.apply({ put: [stored] });
    this.#keep(stored);
    this.#tell(path);
  }

  #makeRoomFor(count: number): void {
    if (this.#nodes.size + count > limits.nodes)
      throw new PosternError('full', `more than ${limits.nodes} nodes in ${this.#name}`);
  }

  #keep(node: StoredNode): void {
    const cut = node.path.lastIndexOf('/');
    const known = this.#nodes.get(node.path);
    this.#nodes.set(node.path, { ...node, children: known?.children ?? new Set() });
    if (cut >= 0) this.#nodes.get(node.path.slice(0, cut))?.children.add(node.path.slice(cut + 1));
  }

  #tell(path: readonly string[]): void {
    for (const listener of this.changed) listener(path);
  }

  #key(path: readonly string[]): string {
    return [this.#name, ...path].join('/');
  }
}

function flatten(path: string, { format, type, value, children = [] }: TndsNode): StoredNode[] {
  const own = { path, format, ...(type !== undefined && { type }), ...(value !== undefined && { value }) };
  return [own, ...children.flatMap((child) => flatten(`${path}/${child.name}`, child))];
}

function checkedValue({ format }: NodeDescription, value: NewNode['value']): NewNode['value'] {
  if (format === 'node' || format === 'null') return undefined;
  const given = value ?? '';
  const wrong = (why: string) => new DmError(DmStatus.BadRequest, why);
  if (Buffer.byteLength(given) > limits.valueBytes)
    throw new DmError(DmStatus.RequestEntityTooLarge, `value of more than ${limits.valueBytes} bytes`);
  if (format === 'int' && !/^[+-]?\d{1,10}$/.test(String(given))) throw wrong('no int');
  if (format === 'bool' && given !== 'true' && given !== 'false') throw wrong('bool is true or false');
  if (format !== 'bin' && typeof given !== 'string') throw wrong('octets where text stands');
  return given;
}
