import { PosternError } from '../base/errors.ts';
import type { AccessType } from '../wire/syncml/ddf.ts';
import { decodeTnds, isTndsType, type NodeFormat, type TndsNode } from '../wire/syncml/tnds.ts';
import { type Acl, allows, parseAcl, type Right, rights, scrubbed } from './acl.ts';
import { DmError } from './dm-error.ts';
import type { AclStore } from './node-store.ts';
import { DmStatus } from './status.ts';
import { UndoableMap } from './undoable-map.ts';
import { escapeName } from './uri.ts';

/** What a node shows of itself. */
export interface NodeView {
  readonly format: NodeFormat;
  readonly type?: string;
  readonly value?: string | Uint8Array;
  /** Names of the children of an interior node. */
  readonly children?: readonly string[];
  readonly access: readonly AccessType[];
  /** It can be neither deleted nor renamed. */
  readonly permanent?: boolean;
  /** Properties that a branch may not have. */
  readonly title?: string;
  readonly timeStamp?: string;
  readonly version?: number;
}

/** A node as Add and Replace bring it. */
export interface NewNode {
  readonly format: NodeFormat;
  readonly type?: string;
  readonly value?: string | Uint8Array;
  readonly title?: string;
}

type Path = readonly string[];

/**
 * One branch of the tree, from a child of the root downwards: stored values, or a live view of something. Paths are below
 * the branch. Rights and access types are checked before a method is called; what is absent is answered by 405.
 */
export interface TreeBranch {
  view(path: Path): NodeView | undefined;
  /** What a node at this path would be, although it is not there; none where no node can be. */
  potential?(path: Path): { readonly access: readonly AccessType[]; readonly format: string } | undefined;
  add?(path: Path, node: NewNode, serverId: string): void | Promise<void>;
  /** Takes a subtree whole; where this is absent its nodes are added one by one. */
  addSubtree?(path: Path, subtree: TndsNode): void;
  replace?(path: Path, node: NewNode): void | Promise<void>;
  delete?(path: Path): void | Promise<void>;
  rename?(path: Path, name: string): void;
  retitle?(path: Path, title: string): void;
  /** Takes a node at the branch's own root, as `./Inbox` does, which finds the right place itself. */
  deposit?(node: NewNode, serverId: string): void | Promise<void>;
  /** Answers with a status: 200, or 202 with an alert to come. */
  exec?(
    path: Path,
    argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number | Promise<number>;
  /** Levels of changes that can be taken back; they nest. A branch without them cannot undo. */
  begin?(): void;
  commit?(): void;
  rollback?(): void;
}

/** Runs work that must be written as a whole, or not at all. */
export type Durably = <T>(work: () => T) => T;

/** Nodes within nodes of a Copy. */
const copyDepth = 16;

/** The management tree of one device (OMA DM tree and description 1.2.1): branches, rights, and the commands on nodes. */
export class ManagementTree {
  readonly #branches: Record<string, TreeBranch>;
  readonly #store: AclStore;
  readonly #durably: Durably;
  readonly #acls = new UndoableMap<string>();

  /** `acls` holds at least the root's, at `.`: rights are inherited from the nearest node that has an ACL. */
  constructor(
    branches: Readonly<Record<string, TreeBranch>>,
    acls: AclStore,
    durably: Durably = (work) => work(),
  ) {
    this.#branches = { ...branches };
    this.#store = acls;
    this.#durably = durably;
    for (const uri of acls.uris()) this.#acls.set(uri, acls.get(uri));
  }

  /** Adds branches below the root. */
  mount(branches: Readonly<Record<string, TreeBranch>>): void {
    Object.assign(this.#branches, branches);
  }

  view(path: Path): NodeView | undefined {
    const [name, ...below] = path;
    if (name === undefined)
      return { format: 'node', children: Object.keys(this.#branches), access: ['Get'], permanent: true };
    return this.#branch(name)?.view(below);
  }

  /** Changes from here on are taken back by `rollback`, or kept by `commit`; levels nest. */
  begin(): void {
    this.#acls.begin();
    for (const branch of Object.values(this.#branches)) branch.begin?.();
  }

  /** Of the outermost level: makes all of it durable, as a whole. */
  commit(): void {
    this.#durably(() => {
      for (const branch of Object.values(this.#branches)) branch.commit?.();
      this.#writeAcls(this.#acls.commit());
    });
  }

  rollback(): void {
    this.#acls.rollback();
    for (const branch of Object.values(this.#branches)) branch.rollback?.();
  }

  /** All that `work` changes, or nothing when it throws. */
  async whole(work: () => Promise<void>): Promise<void> {
    this.begin();
    try {
      await work();
    } catch (thrown) {
      this.rollback();
      throw thrown;
    }
    this.commit();
  }

  /** Whether what a command does there can be taken back. */
  canUndo([name = '']: Path): boolean {
    return this.#branch(name)?.rollback !== undefined;
  }

  /** @throws {DmError} 404, 405, 425 */
  get(path: Path, serverId: string): NodeView {
    const view = this.#existing(path);
    this.#demand(view.access, path, 'Get', path, serverId);
    return view;
  }

  /** Whether this server has the right at this node, by its own ACL or an inherited one. */
  permits(path: Path, right: Right, serverId: string): boolean {
    return allows(this.#effectiveAcl(path), right, serverId);
  }

  /** For what the program itself decides. */
  setAcl(path: Path, acl: string): void {
    this.#setAcl(key(path), acl);
  }

  /** The node's own ACL as text, empty when it inherits (section 7.7.1.2). */
  getAcl(path: Path, serverId: string): string {
    this.get(path, serverId);
    return this.#acls.get(key(path)) ?? '';
  }

  /** @throws {DmError} 400, 404, 405, 425 */
  replaceAcl(path: Path, acl: string, serverId: string): void {
    const view = this.#existing(path);
    parseAcl(acl);
    // Section 7.7.1.3: at a leaf the right comes from the parent, at an interior node from the node itself.
    const holder = view.format === 'node' ? path : path.slice(0, -1);
    if (!this.permits(holder, 'Replace', serverId)) throw denied('Replace', path);
    if (path.length === 0 && acl === '') throw new DmError(DmStatus.CommandNotAllowed, 'the root has an ACL');
    this.#setAcl(key(path), acl === '' ? undefined : acl);
  }

  /** A server is gone: its name goes from every ACL (section 7.7.1.4). */
  forgetServer(serverId: string): void {
    for (const uri of [...this.#acls.keys()]) {
      const acl = this.#acls.get(uri);
      if (acl === undefined) continue;
      const left = scrubbed(acl, serverId);
      if (left !== acl) this.#setAcl(uri, left === '' && uri !== '.' ? undefined : left);
    }
  }

  /** @throws {DmError} 404, 405, 414, 418, 425 */
  async add(path: Path, node: NewNode, serverId: string): Promise<void> {
    const { branch, below } = this.#owner(path);
    if (branch?.deposit && below.length === 0) {
      this.#demand(this.#existing(path).access, path, 'Add', path, serverId);
      await branch.deposit(node, serverId);
      return;
    }
    if (path.length === 0 || this.view(path))
      throw new DmError(DmStatus.AlreadyExists, `${key(path)} exists`);
    await this.#addParent(path.slice(0, -1), serverId);
    const parent = path.slice(0, -1);
    if (this.#existing(parent).format !== 'node')
      throw new DmError(DmStatus.CommandNotAllowed, `${key(parent)} is a leaf`);
    const access = branch?.potential?.(below)?.access;
    if (!branch?.add || !access)
      throw new DmError(DmStatus.CommandNotAllowed, `nothing can be added at ${key(path)}`);
    this.#demand(access, path, 'Add', parent, serverId);
    if (!isTndsType(node.type)) await branch.add(below, node, serverId);
    else {
      const { root } = decodeTnds(node.value ?? '');
      if (branch.addSubtree) branch.addSubtree(below, root);
      else await this.#addSubtree(path, root, serverId);
    }
    // Section 7.7.1.2: who adds an interior node without the right to change its ACL gets full rights to the new node; to
    // Exec as well, which who may change the ACL can take anyway.
    const isOwned = this.#acls.get(key(path)) !== undefined || this.permits(path, 'Replace', serverId);
    if (this.view(path)?.format === 'node' && !isOwned)
      this.#setAcl(key(path), rights.map((right) => `${right}=${serverId}`).join('&'));
  }

  /** @throws {DmError} 404, 405, 425 */
  async replace(path: Path, node: NewNode, serverId: string): Promise<void> {
    const view = this.#existing(path);
    this.#demand(view.access, path, 'Replace', path, serverId);
    if (view.format !== 'node' && node.format === 'node')
      throw new DmError(DmStatus.CommandNotAllowed, `${key(path)} is a leaf`);
    const { branch, below } = this.#owner(path);
    if (!branch?.replace) throw notTaken(path);
    await branch.replace(below, node);
  }

  /** @throws {DmError} 404, 405, 425 */
  async delete(path: Path, serverId: string): Promise<void> {
    const view = this.#existing(path);
    if (view.permanent) throw new DmError(DmStatus.CommandNotAllowed, `${key(path)} is permanent`);
    this.#demand(view.access, path, 'Delete', path, serverId);
    const { branch, below } = this.#owner(path);
    if (!branch?.delete) throw notTaken(path);
    await branch.delete(below);
    this.#dropAcls(path);
  }

  /**
   * Copies a node with all below it that the server may read.
   * @throws {DmError} 404, 405, 418, 425
   */
  async copy(from: Path, to: Path, serverId: string): Promise<void> {
    if (to.length > from.length && from.every((name, at) => to[at] === name))
      throw new DmError(DmStatus.CommandNotAllowed, `${key(to)} is within ${key(from)}`);
    await this.#copy(from, to, serverId, copyDepth);
  }

  /** @throws {DmError} 404, 405, 418, 425 */
  rename(path: Path, name: string, serverId: string): void {
    const view = this.#existing(path);
    const { branch, below } = this.#owner(path);
    if (view.permanent || !branch?.rename || below.length === 0)
      throw new DmError(DmStatus.CommandNotAllowed, `${key(path)} keeps its name`);
    if (!this.permits(path, 'Replace', serverId)) throw denied('Replace', path);
    const to = [...path.slice(0, -1), name];
    if (this.view(to)) throw new DmError(DmStatus.AlreadyExists, `${key(to)} exists`);
    if (!branch.potential?.([...below.slice(0, -1), name]))
      throw new DmError(DmStatus.CommandNotAllowed, `no node may be named ${name} there`);
    branch.rename(below, name);
    for (const uri of this.#aclsFrom(path)) {
      this.#setAcl(key(to) + uri.slice(key(path).length), this.#acls.get(uri));
      this.#setAcl(uri, undefined);
    }
  }

  /** @throws {DmError} 404, 405, 413, 425 */
  retitle(path: Path, title: string, serverId: string): void {
    this.#existing(path);
    const { branch, below } = this.#owner(path);
    if (!branch?.retitle) throw notTaken(path);
    if (!this.permits(path, 'Replace', serverId)) throw denied('Replace', path);
    branch.retitle(below, title);
  }

  /** @throws {DmError} 404, 405, 425 */
  async exec(
    path: Path,
    argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): Promise<number> {
    const view = this.#existing(path);
    this.#demand(view.access, path, 'Exec', path, serverId);
    const { branch, below } = this.#owner(path);
    if (!branch?.exec) throw notTaken(path);
    return await branch.exec(below, argument, correlator, serverId);
  }

  /** Interior nodes that are missing above a new one are added with it (section 7.3.1, implicit addition). */
  async #addParent(path: Path, serverId: string): Promise<void> {
    if (path.length < 2 || this.view(path)) return;
    const { branch, below } = this.#owner(path);
    if (branch?.potential?.(below)?.format !== 'node') return;
    await this.add(path, { format: 'node' }, serverId);
  }

  async #addSubtree(
    path: Path,
    { format, type, value, acl, title, children = [] }: TndsNode,
    serverId: string,
  ) {
    const { branch, below } = this.#owner(path);
    const access = branch?.potential?.(below)?.access;
    if (!branch?.add || !access)
      throw new DmError(DmStatus.CommandNotAllowed, `nothing can be added at ${key(path)}`);
    this.#demand(access, path, 'Add', path.slice(0, -1), serverId);
    const node = {
      format,
      ...(type !== undefined && { type }),
      ...(value !== undefined && { value }),
      ...(title !== undefined && { title }),
    };
    await branch.add(below, node, serverId);
    for (const child of children) await this.#addSubtree([...path, escapeName(child.name)], child, serverId);
    if (acl !== undefined) {
      parseAcl(acl);
      this.#setAcl(key(path), acl);
    }
  }

  async #copy(from: Path, to: Path, serverId: string, depth: number): Promise<void> {
    if (depth === 0) throw new PosternError('tooLarge', 'a copy of too many levels');
    const { format, type, value, children = [] } = this.get(from, serverId);
    await this.add(
      to,
      { format, ...(type !== undefined && { type }), ...(value !== undefined && { value }) },
      serverId,
    );
    for (const name of children)
      if (this.#isReadable([...from, name], serverId))
        await this.#copy([...from, name], [...to, name], serverId, depth - 1);
  }

  #isReadable(path: Path, serverId: string): boolean {
    return (this.view(path)?.access.includes('Get') ?? false) && this.permits(path, 'Get', serverId);
  }

  #branch(name: string): TreeBranch | undefined {
    return Object.hasOwn(this.#branches, name) ? this.#branches[name] : undefined;
  }

  #existing(path: Path): NodeView {
    const view = this.view(path);
    if (!view) throw new DmError(DmStatus.NotFound, `no node ${key(path)}`);
    return view;
  }

  #owner(path: Path): { branch: TreeBranch | undefined; below: Path } {
    const [name = '', ...below] = path;
    return { branch: this.#branch(name), below };
  }

  #demand(access: readonly AccessType[], path: Path, right: Right, holder: Path, serverId: string): void {
    if (!access.includes(right))
      throw new DmError(DmStatus.CommandNotAllowed, `${key(path)} takes no ${right}`);
    if (!this.permits(holder, right, serverId)) throw denied(right, path);
  }

  #effectiveAcl(path: Path): Acl {
    for (let length = path.length; length >= 0; length--) {
      const own = this.#acls.get(key(path.slice(0, length)));
      if (own !== undefined) return parseAcl(own);
    }
    return new Map();
  }

  #setAcl(uri: string, acl: string | undefined): void {
    this.#acls.set(uri, acl);
    if (!this.#acls.isOpen) this.#writeAcls([uri]);
  }

  #aclsFrom(path: Path): string[] {
    const uri = key(path);
    return [...this.#acls.keys()].filter((each) => each === uri || each.startsWith(`${uri}/`));
  }

  #dropAcls(path: Path): void {
    for (const uri of this.#aclsFrom(path)) this.#setAcl(uri, undefined);
  }

  #writeAcls(uris: readonly string[]): void {
    for (const uri of uris) this.#store.set(uri, this.#acls.get(uri));
  }
}

const key = (path: Path): string => ['.', ...path].join('/');
const denied = (right: Right, path: Path) =>
  new DmError(DmStatus.PermissionDenied, `no right to ${right} at ${key(path)}`);
const notTaken = (path: Path) =>
  new DmError(DmStatus.CommandNotAllowed, `${key(path)} does not take this command`);
