import type { NodeStore, StoredNode } from './stored-branch.ts';
import type { AclStore } from './tree.ts';

/** Nodes for as long as the process lives: nothing is written. */
export const forgetfulNodes: NodeStore = { load: () => [], apply: () => {} };

/** Nodes in a map, with a hook that makes them durable as a whole. */
export class MemoryNodes implements NodeStore {
  readonly nodes = new Map<string, StoredNode>();
  readonly #written: () => void;

  constructor(initial: Iterable<StoredNode> = [], written: () => void = () => {}) {
    for (const node of initial) this.nodes.set(node.path, node);
    this.#written = written;
  }

  *load(branch: string): Iterable<StoredNode> {
    for (const node of this.nodes.values())
      if (node.path === branch || node.path.startsWith(`${branch}/`)) yield node;
  }

  apply({ put = [], remove = [] }: Parameters<NodeStore['apply']>[0]): void {
    for (const path of remove) this.nodes.delete(path);
    for (const node of put) this.nodes.set(node.path, node);
    this.#written();
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
}
