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
    this.#acls.begin();
    for (const branch of this.#branches) branch.begin?.();
  }

  /** Closes the innermost level and keeps its changes. The outermost level makes all of them durable together. */
  commit(): void {
    this.#durably(() => {
      for (const branch of this.#branches) branch.commit?.();
      this.#acls.commit();
    });
  }

  /** Closes the innermost level and undoes its changes. */
  rollback(): void {
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
