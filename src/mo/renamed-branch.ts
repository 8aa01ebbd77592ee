import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { describe, type NodeDescription } from '../wire/syncml/ddf.ts';
import type { TndsNode } from '../wire/syncml/tnds.ts';
import { renamed, type Vocabulary } from './vocabulary.ts';

/**
 * A branch whose nodes have other names outside, for DM servers, than inside, in this program. The names come from the
 * vocabulary. Names that are chosen at run time are the same on both sides.
 */
export class RenamedBranch implements TreeBranch {
  readonly #inner: TreeBranch;
  readonly #description: NodeDescription;
  /** Outside names by inside names. */
  readonly #outside: Vocabulary['names'];
  /** Inside names by outside names. */
  readonly #inside: ReadonlyMap<string, string>;
  /** Present only when the inner branch has it. */
  readonly addSubtree?: (path: NodePath, subtree: TndsNode) => void;

  constructor(inner: TreeBranch, description: NodeDescription, names: Vocabulary['names']) {
    this.#inner = inner;
    this.#description = description;
    this.#outside = names;
    this.#inside = new Map(Object.entries(names).map(([own, other]) => [other, own]));
    if (inner.addSubtree)
      this.addSubtree = (path, subtree) => inner.addSubtree?.(this.#at(path), this.#subtree(subtree));
  }

  view(path: NodePath): NodeView | undefined {
    const inner = this.#within(path);
    const view = inner && this.#inner.view(inner);
    if (!inner || !view?.children) return view;
    const known = describe(this.#description, inner)?.children ?? {};
    return {
      ...view,
      children: view.children.map((name) =>
        Object.hasOwn(known, name) ? renamed(this.#outside, name) : name,
      ),
    };
  }

  potential(path: NodePath) {
    const inner = this.#within(path);
    return inner && this.#inner.potential?.(inner);
  }

  async add(path: NodePath, node: NewNode, serverId: string): Promise<void> {
    await this.#inner.add?.(this.#at(path), node, serverId);
  }

  async replace(path: NodePath, node: NewNode): Promise<void> {
    await this.#inner.replace?.(this.#at(path), node);
  }

  async delete(path: NodePath): Promise<void> {
    await this.#inner.delete?.(this.#at(path));
  }

  rename(path: NodePath, name: string): void {
    this.#inner.rename?.(this.#at(path), name);
  }

  retitle(path: NodePath, title: string): void {
    this.#inner.retitle?.(this.#at(path), title);
  }

  async exec(
    path: NodePath,
    argument: NewNode,
    correlator: string | undefined,
    serverId: string,
  ): Promise<number> {
    return (await this.#inner.exec?.(this.#at(path), argument, correlator, serverId)) ?? 0;
  }

  begin(): void {
    this.#inner.begin?.();
  }

  commit(): void {
    this.#inner.commit?.();
  }

  rollback(): void {
    this.#inner.rollback?.();
  }

  committed(): void {
    this.#inner.committed?.();
  }

  /** A subtree with its inside names. */
  #subtree(node: TndsNode): TndsNode {
    const children = node.children?.map((child) => this.#subtree(child));
    return { ...node, name: this.#inside.get(node.name) ?? node.name, ...(children && { children }) };
  }

  /** The path with its inside names, for a node that exists or may exist. */
  #at(path: NodePath): NodePath {
    return this.#within(path) ?? path;
  }

  /**
   * The path with its inside names. Undefined when it has the inside name of a renamed node, which is unknown outside.
   */
  #within(path: NodePath): NodePath | undefined {
    const inner: string[] = [];
    for (const name of path) {
      const known = describe(this.#description, inner)?.children ?? {};
      const own = this.#inside.get(name);
      if (own !== undefined && Object.hasOwn(known, own)) inner.push(own);
      else if (Object.hasOwn(known, name) && renamed(this.#outside, name) !== name) return undefined;
      else inner.push(name);
    }
    return inner;
  }
}
