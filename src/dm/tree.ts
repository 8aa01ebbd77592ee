import { asPosternError, PosternError } from '../base/errors.ts';
import type { AccessType } from '../wire/syncml/ddf.ts';
import { decodeTnds, isTndsType, type TndsNode } from '../wire/syncml/tnds.ts';
import { demandAcl, type Right, rights } from './acl.ts';
import { DmError } from './dm-error.ts';
import type { AclStore } from './node-store.ts';
import { DmStatus } from './status.ts';
import { TreeAcls } from './tree-acls.ts';
import type { NewNode, NodeView, TreeBranch } from './tree-branch.ts';
import { type Durably, TreeTransaction } from './tree-transaction.ts';
import { escapeName, type NodePath, nodeUri } from './uri.ts';

/** Statuses of a Replace whose value the node cannot have. */
const unfit: ReadonlySet<number> = new Set([
  DmStatus.BadRequest,
  DmStatus.RequestEntityTooLarge,
  DmStatus.UnsupportedMediaType,
]);

/** Largest number of levels that one Copy copies. */
const copyDepth = 16;

/**
 * The management tree of one device (OMA DM tree and description 1.2.1): its branches and the commands on nodes. Every
 * command checks the right of the server by the ACLs. The numbers of a DmError are DM statuses: 404 no such node, 405
 * not allowed at this node, 425 no right. Commands also throw what the branch throws.
 */
export class ManagementTree {
  readonly #branches: Record<string, TreeBranch> = {};
  readonly #acls: TreeAcls;
  readonly #transaction: TreeTransaction;
  /** The last work that has its turn. */
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * @param branches the children of the root, by name
   * @param acls the store of the ACLs, which has at least the ACL of the root, at `.`
   * @param durably makes the writes of a commit durable together; runs them one by one when absent
   */
  constructor(
    branches: Readonly<Record<string, TreeBranch>>,
    acls: AclStore,
    durably: Durably = (work) => work(),
  ) {
    this.#acls = new TreeAcls(acls);
    this.#transaction = new TreeTransaction(this.#acls, durably);
    this.mount(branches);
  }

  /** Adds branches below the root, by the names of their nodes. */
  mount(branches: Readonly<Record<string, TreeBranch>>): void {
    Object.assign(this.#branches, branches);
    this.#transaction.include(Object.values(branches));
  }

  /** The node at this path, whoever asks. Undefined when there is none. */
  view(path: NodePath): NodeView | undefined {
    const [name, ...below] = path;
    if (name === undefined)
      return { format: 'node', children: Object.keys(this.#branches), access: ['Get'], permanent: true };
    return this.#branch(name)?.view(below);
  }

  /** Opens a level of changes, which `commit` keeps and `rollback` undoes. Levels nest. */
  begin(): void {
    this.#transaction.begin();
  }

  /** Closes the innermost level and keeps its changes. The outermost level makes all of them durable together. */
  commit(): void {
    this.#transaction.commit();
  }

  /** Closes the innermost level and undoes its changes. */
  rollback(): void {
    this.#transaction.rollback();
  }

  /** Keeps all that `work` changes, or nothing when it throws. Rejects with what `work` threw. */
  async atomically(work: () => Promise<void>): Promise<void> {
    await this.#transaction.atomically(work);
  }

  /**
   * Runs work of a session after that of all others, because the changes of two sessions must not be taken back together. Settles as
   * `work` does.
   */
  async inTurn<T>(work: () => Promise<T>): Promise<T> {
    const run = this.#turn.then(work);
    this.#turn = run.catch(() => {});
    return await run;
  }

  /** Whether changes of the branch of this path can be undone. */
  canUndo([name = '']: NodePath): boolean {
    return this.#branch(name)?.rollback !== undefined;
  }

  /**
   * The node at this path, for a server that may read it.
   * @throws {DmError} 404, 405, 425
   */
  get(path: NodePath, serverId: string): NodeView {
    const view = this.#existing(path);
    this.#demand(view.access, path, 'Get', path, serverId);
    return view;
  }

  /** Whether this server has the right at this node, by its own ACL or an inherited one. */
  permits(path: NodePath, right: Right, serverId: string): boolean {
    return this.#acls.permits(path, right, serverId);
  }

  /** Sets the ACL of a node. For the program itself: rights are not checked. */
  setAcl(path: NodePath, acl: string): void {
    this.#acls.set(path, acl);
  }

  /** Gives a server rights at a node, besides those that others have there. For the program itself. */
  grant(path: NodePath, added: readonly Right[], serverId: string): void {
    this.#acls.grant(path, added, serverId);
  }

  /**
   * The node's own ACL as text. Empty when the node inherits (section 7.7.1.2).
   * @throws {DmError} 404, 405, 425
   */
  getAcl(path: NodePath, serverId: string): string {
    this.get(path, serverId);
    return this.#acls.own(path) ?? '';
  }

  /**
   * Replaces the node's own ACL. With an empty text the node inherits.
   * @throws {DmError} 400 for a text that is not an ACL, 404, 405, 425
   */
  replaceAcl(path: NodePath, acl: string, serverId: string): void {
    const view = this.#existing(path);
    demandAcl(acl);
    // Section 7.7.1.3: for a leaf the right is checked at its parent. An interior node's may also be replaced by a server that
    // has the right at its parent, so that no server locks itself out, or is locked out by others, below its own nodes.
    const parent = path.slice(0, -1);
    const holders = view.format === 'node' ? [path, parent] : [parent];
    if (!holders.some((holder) => this.permits(holder, 'Replace', serverId))) throw denied('Replace', path);
    if (path.length === 0 && acl === '')
      throw new DmError(DmStatus.CommandNotAllowed, 'the root must have an ACL');
    this.#acls.set(path, acl === '' ? undefined : acl);
  }

  /** Removes a server from all ACLs (section 7.7.1.4). */
  forgetServer(serverId: string): void {
    this.#acls.forgetServer(serverId);
  }

  /**
   * Adds a node, or with a TNDS object as value a subtree. Missing interior nodes above it are added as well.
   * @throws {DmError} 404, 405, 418 when the node exists, 425
   * @throws {PosternError} `malformed`, `tooLarge` or `unsupportedFormat` for a wrong TNDS object
   */
  async add(path: NodePath, node: NewNode, serverId: string): Promise<void> {
    const { branch, below } = this.#owner(path);
    if (branch?.deposit && below.length === 0) {
      this.#demand(this.#existing(path).access, path, 'Add', path, serverId);
      await branch.deposit(node, serverId);
      return;
    }
    if (path.length === 0 || this.view(path))
      throw new DmError(DmStatus.AlreadyExists, `${nodeUri(path)} exists`);
    await this.#addParent(path.slice(0, -1), serverId);
    const parent = path.slice(0, -1);
    if (this.#existing(parent).format !== 'node')
      throw new DmError(DmStatus.CommandNotAllowed, `${nodeUri(parent)} is a leaf`);
    const access = branch?.potential?.(below)?.access;
    if (!branch?.add || !access)
      throw new DmError(DmStatus.CommandNotAllowed, `nothing can be added at ${nodeUri(path)}`);
    this.#demand(access, path, 'Add', parent, serverId);
    if (!isTndsType(node.type)) await branch.add(below, node, serverId);
    else {
      const { root } = decodeTnds(node.value ?? '');
      if (branch.addSubtree) {
        branch.addSubtree(below, root);
        this.#setAcls(path, root);
      } else await this.#addSubtree(path, root, serverId);
    }
    // Section 7.7.1.2: a server that adds an interior node without the right to change its ACL gets all rights to the
    // new node. Exec is among them: a server that may change the ACL could give itself that right anyway.
    const isOwned = this.#acls.own(path) !== undefined || this.permits(path, 'Replace', serverId);
    if (this.view(path)?.format === 'node' && !isOwned)
      this.#acls.set(path, rights.map((right) => `${right}=${serverId}`).join('&'));
  }

  /**
   * Replaces the value of a node.
   * @throws {DmError} 404, 405, 425
   */
  async replace(path: NodePath, node: NewNode, serverId: string): Promise<void> {
    const view = this.#existing(path);
    this.#demand(view.access, path, 'Replace', path, serverId);
    if (view.format !== 'node' && node.format === 'node')
      throw new DmError(DmStatus.CommandNotAllowed, `${nodeUri(path)} is a leaf`);
    const { branch, below } = this.#owner(path);
    if (!branch?.replace) throw notTaken(path);
    await branch.replace(below, node);
  }

  /**
   * Deletes a node with all nodes below it, and their ACLs.
   * @throws {DmError} 404, 405, 425
   */
  async delete(path: NodePath, serverId: string): Promise<void> {
    const view = this.#existing(path);
    if (view.permanent) throw new DmError(DmStatus.CommandNotAllowed, `${nodeUri(path)} is permanent`);
    this.#demand(view.access, path, 'Delete', path, serverId);
    const { branch, below } = this.#owner(path);
    if (!branch?.delete) throw notTaken(path);
    await branch.delete(below);
    this.#acls.drop(path);
  }

  /**
   * Copies a node, and all nodes below it that the server may read. A leaf onto a leaf replaces its value.
   * @throws {DmError} 403 for what cannot be copied there, whatever the rights (DM representation protocol 1.2.1, section 6.6.4):
   *   a node into itself, an interior node or onto one that is there, a value that the leaf cannot have; 404, 405, 425
   * @throws {PosternError} `tooLarge` for a subtree of too many levels
   */
  async copy(from: NodePath, to: NodePath, serverId: string): Promise<void> {
    const forbidden = (why: string) => new DmError(DmStatus.Forbidden, `no Copy to ${nodeUri(to)}: ${why}`);
    if (to.length > from.length && from.every((name, at) => to[at] === name))
      throw forbidden(`it is within ${nodeUri(from)}`);
    const target = this.view(to);
    const source = this.get(from, serverId);
    if (!target) return await this.#copy(from, to, serverId, copyDepth);
    if (target.format === 'node' || source.format === 'node') throw forbidden('not a leaf onto a leaf');
    try {
      await this.replace(to, nodeOf(source), serverId);
    } catch (thrown) {
      const { dmStatus, message } = asPosternError(thrown);
      throw unfit.has(dmStatus) ? forbidden(message) : thrown;
    }
  }

  /**
   * Gives a node another name. Its ACL and those of the nodes below it move with it.
   * @throws {DmError} 404, 405, 418 when the name is taken, 425
   */
  rename(path: NodePath, name: string, serverId: string): void {
    const view = this.#existing(path);
    const { branch, below } = this.#owner(path);
    if (view.permanent || !branch?.rename || below.length === 0)
      throw new DmError(DmStatus.CommandNotAllowed, `${nodeUri(path)} keeps its name`);
    if (!this.permits(path, 'Replace', serverId)) throw denied('Replace', path);
    const to = [...path.slice(0, -1), name];
    if (this.view(to)) throw new DmError(DmStatus.AlreadyExists, `${nodeUri(to)} exists`);
    if (!branch.potential?.([...below.slice(0, -1), name]))
      throw new DmError(DmStatus.CommandNotAllowed, `no node may be named ${name} there`);
    branch.rename(below, name);
    this.#acls.move(path, to);
  }

  /**
   * Changes the property Title.
   * @throws {DmError} 404, 405, 413 for a title that is too long, 425
   */
  retitle(path: NodePath, title: string, serverId: string): void {
    this.#existing(path);
    const { branch, below } = this.#owner(path);
    if (!branch?.retitle) throw notTaken(path);
    if (!this.permits(path, 'Replace', serverId)) throw denied('Replace', path);
    branch.retitle(below, title);
  }

  /**
   * Executes a node. Returns the status: 200, or 202 when an alert with this correlator will report the outcome.
   * @throws {DmError} 404, 405, 425
   */
  async exec(
    path: NodePath,
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

  /** Adds the interior nodes that are missing above a new node (section 7.3.1, implicit addition). */
  async #addParent(path: NodePath, serverId: string): Promise<void> {
    if (path.length < 2 || this.view(path)) return;
    const { branch, below } = this.#owner(path);
    if (branch?.potential?.(below)?.format !== 'node') return;
    await this.add(path, { format: 'node' }, serverId);
  }

  /** Adds the nodes of a subtree one by one, each parent before its children. */
  async #addSubtree(
    path: NodePath,
    { format, type, value, acl, title, children = [] }: TndsNode,
    serverId: string,
  ) {
    const { branch, below } = this.#owner(path);
    const access = branch?.potential?.(below)?.access;
    if (!branch?.add || !access)
      throw new DmError(DmStatus.CommandNotAllowed, `nothing can be added at ${nodeUri(path)}`);
    this.#demand(access, path, 'Add', path.slice(0, -1), serverId);
    const node = {
      format,
      ...(type !== undefined && { type }),
      ...(value !== undefined && { value }),
      ...(title !== undefined && { title }),
    };
    await branch.add(below, node, serverId);
    for (const child of children) await this.#addSubtree([...path, escapeName(child.name)], child, serverId);
    this.#setAcl(path, acl);
  }

  /** Sets the ACLs that a subtree brings with it. */
  #setAcls(path: NodePath, { acl, children = [] }: TndsNode): void {
    for (const child of children) this.#setAcls([...path, escapeName(child.name)], child);
    this.#setAcl(path, acl);
  }

  #setAcl(path: NodePath, acl: string | undefined): void {
    if (acl === undefined) return;
    demandAcl(acl);
    this.#acls.set(path, acl);
  }

  async #copy(from: NodePath, to: NodePath, serverId: string, depth: number): Promise<void> {
    if (depth === 0) throw new PosternError('tooLarge', 'a Copy of too many levels');
    const source = this.get(from, serverId);
    await this.add(to, nodeOf(source), serverId);
    for (const name of source.children ?? [])
      if (this.#isReadable([...from, name], serverId))
        await this.#copy([...from, name], [...to, name], serverId, depth - 1);
  }

  #isReadable(path: NodePath, serverId: string): boolean {
    return (this.view(path)?.access.includes('Get') ?? false) && this.permits(path, 'Get', serverId);
  }

  #branch(name: string): TreeBranch | undefined {
    return Object.hasOwn(this.#branches, name) ? this.#branches[name] : undefined;
  }

  #existing(path: NodePath): NodeView {
    const view = this.view(path);
    if (!view) throw new DmError(DmStatus.NotFound, `no node ${nodeUri(path)}`);
    return view;
  }

  /** The branch of a path, and the path relative to it. */
  #owner(path: NodePath): { branch: TreeBranch | undefined; below: NodePath } {
    const [name = '', ...below] = path;
    return { branch: this.#branch(name), below };
  }

  /**
   * Checks that a node allows a command, and that the server has the right to it at `holder`.
   * @throws {DmError} 405, 425
   */
  #demand(
    access: readonly AccessType[],
    path: NodePath,
    right: Right,
    holder: NodePath,
    serverId: string,
  ): void {
    if (!access.includes(right))
      throw new DmError(DmStatus.CommandNotAllowed, `${nodeUri(path)} takes no ${right}`);
    if (!this.permits(holder, right, serverId)) throw denied(right, path);
  }
}

/** A new node with the format, type and value of another one. */
const nodeOf = ({ format, type, value }: Pick<NodeView, 'format' | 'type' | 'value'>): NewNode => ({
  format,
  ...(type !== undefined && { type }),
  ...(value !== undefined && { value }),
});

const denied = (right: Right, path: NodePath) =>
  new DmError(DmStatus.PermissionDenied, `no right to ${right} at ${nodeUri(path)}`);
const notTaken = (path: NodePath) =>
  new DmError(DmStatus.CommandNotAllowed, `${nodeUri(path)} does not take this command`);
