import type { TreeAcls } from './tree-acls.ts';
import type { TreeBranch } from './tree-branch.ts';

/** Runs `work` so that all of its writes become durable, or none of them, and returns its result. */
export type Durably = <T>(work: () => T) => T;

/**
 * Keeps or undoes the changes of all branches of a tree, and of its ACLs, together. Levels of changes nest. A branch
 * without levels keeps its changes.
 */
export class TreeTransaction {
  readonly #branches: TreeBranch[] = [];
  readonly #acls: TreeAcls;
  readonly #durably: Durably;
  /** Levels that are open. */
  #depth = 0;

  constructor(acls: TreeAcls, durably: Durably) {
    this.#acls = acls;
    this.#durably = durably;
  }

  /** Branches that take part from now on. */
  include(branches: readonly TreeBranch[]): void {
    this.#branches.push(...branches);
  }

  /** Opens a level of changes. */
  begin(): void {
    this.#depth++;
    this.#acls.begin();
    for (const branch of this.#branches) branch.begin?.();
  }

  /**
   * Closes the innermost level and keeps its changes. The outermost level stores all of them together. If they cannot be
   * stored, all are undone, in memory too, and what the store threw is thrown. An inner level joins the one around it and
   * stores nothing, so no disk can refuse it.
   */
  commit(): void {
    const open = [...this.#branches, this.#acls];
    if (this.#depth > 1) {
      for (const part of open) part.commit?.();
      this.#depth--;
      return;
    }
    try {
      this.#durably(() => {
        for (let next = open.shift(); next; next = open.shift()) next.commit?.();
      });
    } catch (thrown) {
      // A part that was closed is taken back by the store. Parts that are still open take themselves back.
      for (const part of open) part.rollback?.();
      this.#depth--;
      throw thrown;
    }
    if (--this.#depth === 0) this.#follow();
  }

  /** What follows from a commit begins in each branch, also when it fails in another one: it is stored. */
  #follow(): void {
    const errors: unknown[] = [];
    for (const branch of this.#branches)
      try {
        branch.committed?.();
      } catch (thrown) {
        errors.push(thrown);
      }
    if (errors.length > 0) throw errors[0];
  }

  /** Closes the innermost level and undoes its changes. */
  rollback(): void {
    this.#depth--;
    this.#acls.rollback();
    for (const branch of this.#branches) branch.rollback?.();
  }

  /** Keeps all that `work` changes, or nothing when it throws. Rejects with what `work` threw. */
  async atomically(work: () => Promise<void>): Promise<void> {
    this.begin();
    try {
      await work();
    } catch (thrown) {
      this.rollback();
      throw thrown;
    }
    this.commit();
  }
}
