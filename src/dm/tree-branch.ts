import type { AccessType } from '../wire/syncml/ddf.ts';
import type { NodeFormat, TndsNode } from '../wire/syncml/tnds.ts';
import type { NodePath } from './uri.ts';

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

/**
 * One branch of the tree, from a child of the root downwards: stored values, or a live view of something. Paths are below
 * the branch. Rights and access types are checked before a method is called; what is absent is answered by 405.
 */
export interface TreeBranch {
  view(path: NodePath): NodeView | undefined;
  /** What a node at this path would be, although it is not there; none where no node can be. */
  potential?(path: NodePath): { readonly access: readonly AccessType[]; readonly format: string } | undefined;
  add?(path: NodePath, node: NewNode, serverId: string): void | Promise<void>;
  /** Takes a subtree whole; where this is absent its nodes are added one by one. */
  addSubtree?(path: NodePath, subtree: TndsNode): void;
  replace?(path: NodePath, node: NewNode): void | Promise<void>;
  delete?(path: NodePath): void | Promise<void>;
  rename?(path: NodePath, name: string): void;
  retitle?(path: NodePath, title: string): void;
  /** Takes a node at the branch's own root, as `./Inbox` does, which finds the right place itself. */
  deposit?(node: NewNode, serverId: string): void | Promise<void>;
  /** Answers with a status: 200, or 202 with an alert to come. */
  exec?(
    path: NodePath,
    argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): number | Promise<number>;
  /** Levels of changes that can be taken back; they nest. A branch without them cannot undo. */
  begin?(): void;
  commit?(): void;
  rollback?(): void;
}
