import type { NodeFormat } from '../wire/syncml/tnds.ts';

/** A stored node: `path` is below the tree's root, its segments joined by `/`. Interior nodes have no value. */
export interface StoredNode {
  readonly path: string;
  readonly format: NodeFormat;
  readonly type?: string;
  readonly value?: string | Uint8Array;
  readonly title?: string;
  /** Of the last change by a command, as the property TStamp has it; absent where nobody knows the time. */
  readonly timeStamp?: string;
  /** Counts changes by commands, 16 bits: the property VerNo. */
  readonly version?: number;
}

/** A node as it was found in the store: whether its format is one of DM's has not been checked. */
export type LoadedNode = Omit<StoredNode, 'format'> & { readonly format: string };

export interface NodeChanges {
  readonly put?: readonly StoredNode[];
  /** Paths. */
  readonly remove?: readonly string[];
}

/** Where the nodes of a branch are kept. Reads come from memory, so `load` is called once. */
export interface NodeStore {
  load(branch: string): Iterable<LoadedNode>;
  /** Makes all changes, or none. */
  apply(changes: NodeChanges): void;
}

/** Where ACLs are kept: by URI of the node, written only where a node has its own. */
export interface AclStore {
  get(uri: string): string | undefined;
  set(uri: string, acl: string | undefined): void;
  /** URIs with an ACL of their own. */
  uris(): Iterable<string>;
}

/** Nodes for as long as the process lives: nothing is written. */
export const forgetfulNodes: NodeStore = { load: () => [], apply: () => {} };

/** Nodes in a map. */
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

export class MemoryAcls implements AclStore {
  readonly acls: Map<string, string>;

  constructor(initial: Readonly<Record<string, string>>) {
    this.acls = new Map(Object.entries(initial));
  }

  get(uri: string): string | undefined {
    return this.acls.get(uri);
  }

  set(uri: string, acl: string | undefined): void {
    if (acl === undefined) this.acls.delete(uri);
    else this.acls.set(uri, acl);
  }

  uris(): Iterable<string> {
    return this.acls.keys();
  }
}
