import type { TreeAcls } from './tree-acls.ts';
import type { TreeBranch } from './tree-branch.ts';

/** Runs work that must be written as a whole, or not at all. */
export type Durably = <T>(work: () => T) => T;

/** Changes of all branches of a tree, and of its ACLs, that are kept or taken back together. Levels nest. */
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

  begin(): void {
    this.#acls.begin();
    for (const branch of this.#branches) branch.begin?.();
  }

  /** Of the outermost level: makes all of it durable, as a whole. */
  commit(): void {
    this.#durably(() => {
      for (const branch of this.#branches) branch.commit?.();
      this.#acls.commit();
    });
  }

  rollback(): void {
    this.#acls.rollback();
    for (const branch of this.#branches) branch.rollback?.();
  }

  /** Keeps all that `work` changes, or nothing when it throws. */
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
