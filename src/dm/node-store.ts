import type { NodeFormat } from '../wire/syncml/tnds.ts';

/**
 * A stored node. `path` is relative to the root, its names joined by `/`: `DevInfo/DevId`. Interior nodes have no
 * value.
 */
export interface StoredNode {
  readonly path: string;
  readonly format: NodeFormat;
  readonly type?: string;
  readonly value?: string | Uint8Array;
  readonly title?: string;
  /** Time of the last change by a command: the property TStamp, such as `20231114T221321Z`. Absent without a clock. */
  readonly timeStamp?: string;
  /** Number of changes by commands, modulo 65536: the property VerNo. */
  readonly version?: number;
  /** The value is a secret: it is stored sealed, where the store can do that. */
  readonly secret?: boolean;
}

/** Nodes to write and nodes to delete. */
export interface NodeChanges {
  /** Each replaces the node at its path, if there is one. */
  readonly put?: readonly StoredNode[];
  /** Paths of nodes. */
  readonly remove?: readonly string[];
}

/** Durable storage for the nodes of branches. A branch keeps its nodes in memory, so it calls `load` once. */
export interface NodeStore {
  /** The nodes of the branch with this name, each with a value that fits its format. */
  load(branch: string): Iterable<StoredNode>;
  /** Seals the values of nodes that are stored in clear. */
  seal?(nodes: readonly StoredNode[]): void;
  /** Removes a node that cannot be used, because its branch has no place for it. */
  setAside?(path: string, reason: string): void;
  /**
   * Makes all changes or none, as part of the transaction under way if there is one.
   * @param undo called when the changes are not kept: takes them back in the caller's memory
   */
  apply(changes: NodeChanges, undo: () => void): void;
}

/**
 * Durable storage for ACLs, by URI of the node, such as `./DevInfo`. Nodes without an ACL of their own have no entry. A tree
 * keeps its ACLs in memory, so it calls `load` once.
 */
export interface AclStore {
  load(): Iterable<readonly [uri: string, acl: string]>;
  /**
   * Makes all changes or none, as part of the transaction under way if there is one. Without an ACL an entry is deleted.
   * @param undo called when the changes are not kept: takes them back in the caller's memory
   */
  apply(changes: ReadonlyMap<string, string | undefined>, undo: () => void): void;
}

/** Stores nothing: the nodes of its branches live as long as the process. */
export const forgetfulNodes: NodeStore = { load: () => [], apply: () => {} };

/** Stores nodes in a map. */
export class MemoryNodes implements NodeStore {
  readonly nodes = new Map<string, StoredNode>();

  *load(branch: string): Iterable<StoredNode> {
    for (const node of this.nodes.values())
      if (node.path === branch || node.path.startsWith(`${branch}/`)) yield node;
  }

  apply({ put = [], remove = [] }: NodeChanges): void {
    for (const path of remove) this.nodes.delete(path);
    for (const node of put) this.nodes.set(node.path, node);
  }
}

/** Stores ACLs in a map. */
export class MemoryAcls implements AclStore {
  readonly acls: Map<string, string>;

  constructor(initial: Readonly<Record<string, string>>) {
    this.acls = new Map(Object.entries(initial));
  }

  load(): Iterable<[string, string]> {
    return this.acls.entries();
  }

  apply(changes: ReadonlyMap<string, string | undefined>): void {
    for (const [uri, acl] of changes)
      if (acl === undefined) this.acls.delete(uri);
      else this.acls.set(uri, acl);
  }
}
