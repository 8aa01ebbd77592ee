import type { AccessType } from '../syncml/ddf.ts';
import type { NodeFormat } from '../syncml/tnds.ts';
import { type Acl, allows, parseAcl, type Right } from './acl.ts';
import { DmError } from './dm-error.ts';
import { DmStatus } from './status.ts';

/** What a node shows of itself. */
export interface NodeView {
  readonly format: NodeFormat;
  readonly type?: string;
  readonly value?: string | Uint8Array;
  /** Names of the children of an interior node. */
  readonly children?: readonly string[];
  readonly access: readonly AccessType[];
}

/** A node as Add and Replace bring it. */
export interface NewNode {
  readonly format: NodeFormat;
  readonly type?: string;
  readonly value?: string | Uint8Array;
}

type Path = readonly string[];

/**
 * One branch of the tree, from a child of the root downwards: stored values, or a live view of something. Paths are below
 * the branch. Rights and access types are checked before a method is called; what is absent is answered by 405.
 */
export interface TreeBranch {
  view(path: Path): NodeView | undefined;
  /** What a node at this path would allow, although it is not there; none where no node can be. */
  potential?(path: Path): readonly AccessType[] | undefined;
  add?(path: Path, node: NewNode, serverId: string): void | Promise<void>;
  replace?(path: Path, node: NewNode): void | Promise<void>;
  delete?(path: Path): void | Promise<void>;
  /** Takes a node at the branch's own root, as `./Inbox` does, which finds the right place itself. */
  deposit?(node: NewNode, serverId: string): void | Promise<void>;
  /** Answers with a status: 200, or 202 with an alert to come. */
  exec?(path: Path, argument: NewNode, correlator: string | undefined): number | Promise<number>;
}

/** Where ACLs are kept: by URI of the node, written only where a node has its own. */
export interface AclStore {
  get(uri: string): string | undefined;
  set(uri: string, acl: string | undefined): void;
}

/** The management tree of one device (OMA DM tree and description 1.2.1): branches, rights, and the commands on nodes. */
export class ManagementTree {
  readonly #branches: Readonly<Record<string, TreeBranch>>;
  readonly #acls: AclStore;

  /** `acls` holds at least the root's, at `.`: rights are inherited from the nearest node that has an ACL. */
  constructor(branches: Readonly<Record<string, TreeBranch>>, acls: AclStore) {
    this.#branches = branches;
    this.#acls = acls;
  }

  view(path: Path): NodeView | undefined {
    const [name, ...below] = path;
    if (name === undefined) return { format: 'node', children: Object.keys(this.#branches), access: ['Get'] };
    return this.#branch(name)?.view(below);
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
    this.#acls.set(key(path), acl);
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
    if (!allows(this.#effectiveAcl(holder), 'Replace', serverId)) throw denied('Replace', path);
    if (path.length === 0 && acl === '') throw new DmError(DmStatus.CommandNotAllowed, 'the root has an ACL');
    this.#acls.set(key(path), acl === '' ? undefined : acl);
  }

  /** @throws {DmError} 404, 405, 418, 425 */
  async add(path: Path, node: NewNode, serverId: string): Promise<void> {
    const { branch, below } = this.#owner(path);
    if (branch?.deposit && below.length === 0) {
      this.#demand(this.#existing(path).access, path, 'Add', path, serverId);
      await branch.deposit(node, serverId);
      return;
    }
    if (path.length === 0 || this.view(path))
      throw new DmError(DmStatus.AlreadyExists, `${key(path)} exists`);
    const parent = path.slice(0, -1);
    if (this.#existing(parent).format !== 'node')
      throw new DmError(DmStatus.CommandNotAllowed, `${key(parent)} is a leaf`);
    const access = branch?.potential?.(below);
    if (!branch?.add || !access)
      throw new DmError(DmStatus.CommandNotAllowed, `nothing can be added at ${key(path)}`);
    this.#demand(access, path, 'Add', parent, serverId);
    await branch.add(below, node, serverId);
    // Section 7.7.1.2: who adds an interior node without the right to change its ACL gets full rights to the new node.
    if (node.format === 'node' && !allows(this.#effectiveAcl(path), 'Replace', serverId))
      this.#acls.set(key(path), `Add=${serverId}&Delete=${serverId}&Get=${serverId}&Replace=${serverId}`);
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
    this.#demand(view.access, path, 'Delete', path, serverId);
    const { branch, below } = this.#owner(path);
    if (!branch?.delete) throw notTaken(path);
    await branch.delete(below);
    this.#acls.set(key(path), undefined);
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
    return await branch.exec(below, argument, correlator);
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
    if (!allows(this.#effectiveAcl(holder), right, serverId)) throw denied(right, path);
  }

  #effectiveAcl(path: Path): Acl {
    for (let length = path.length; length >= 0; length--) {
      const own = this.#acls.get(key(path.slice(0, length)));
      if (own !== undefined) return parseAcl(own);
    }
    return new Map();
  }
}

const key = (path: Path): string => ['.', ...path].join('/');
const denied = (right: Right, path: Path) =>
  new DmError(DmStatus.PermissionDenied, `no right to ${right} at ${key(path)}`);
const notTaken = (path: Path) =>
  new DmError(DmStatus.CommandNotAllowed, `${key(path)} does not take this command`);
