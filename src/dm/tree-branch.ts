import type { AccessType } from '../wire/syncml/ddf.ts';
import type { NodeFormat, TndsNode } from '../wire/syncml/tnds.ts';
import type { NodePath } from './uri.ts';

/** A node as commands see it. */
export interface NodeView {
  readonly format: NodeFormat;
  readonly type?: string;
  readonly value?: string | Uint8Array;
  /** Names of the children of an interior node. */
  readonly children?: readonly string[];
  readonly access: readonly AccessType[];
  /** Set on a node that can be neither deleted nor renamed. */
  readonly permanent?: boolean;
  /** Properties Title, TStamp and VerNo. Absent in a branch that does not keep them. */
  readonly title?: string;
  readonly timeStamp?: string;
  readonly version?: number;
}

/** A node as Add and Replace give it, and the argument of an Exec. */
export interface NewNode {
  readonly format: NodeFormat;
  readonly type?: string;
  readonly value?: string | Uint8Array;
  readonly title?: string;
}

/**
 * One branch of the tree, from a child of the root downwards: stored values, or a live view of something else. Paths
 * are relative to the branch. The tree checks rights and access types before it calls a method. A command whose method
 * is absent is answered with 405.
 */
export interface TreeBranch {
  /** The node at this path. Undefined when there is none. */
  view(path: NodePath): NodeView | undefined;
  /** What a node at this path would be if it were added. Undefined where no node can be. */
  potential?(path: NodePath): { readonly access: readonly AccessType[]; readonly format: string } | undefined;
  add?(path: NodePath, node: NewNode, serverId: string): void | Promise<void>;
  /** Adds a subtree in one step. When this is absent, its nodes are added one by one. */
  addSubtree?(path: NodePath, subtree: TndsNode): void;
  replace?(path: NodePath, node: NewNode): void | Promise<void>;
  delete?(path: NodePath): void | Promise<void>;
  rename?(path: NodePath, name: string): void;
  /** Changes the property Title. */
  retitle?(path: NodePath, title: string): void;
  /**
   * Takes a node that is added at the branch's own root. `./Inbox` does so, and finds the place of the object itself.
   */
  deposit?(node: NewNode, serverId: string): void | Promise<void>;
  /** Executes a node. Returns the status: 200, or 202 when an alert will report the outcome. */
  exec?(
    path: NodePath,
    argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number | Promise<number>;
  /**
   * Levels of changes, which nest. `rollback` undoes the changes since the last `begin`; `commit` adds them to the
   * level around it, or makes them final. Without these methods, changes of the branch cannot be undone.
   */
  begin?(): void;
  commit?(): void;
  rollback?(): void;
  /** All changes since the outermost `begin` are stored, of this branch and of all others. What follows from them begins now. */
  committed?(): void;
}
