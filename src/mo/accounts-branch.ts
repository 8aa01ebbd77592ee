import { isServerId } from '../dm/acl.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import type { NewNode } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';

/** What follows when a server has no account any more. */
export interface AccountsListener {
  /** Called within the change that takes the account away. What the listener changes is kept or undone with it. */
  readonly lost: (serverId: string) => void;
  /** Called when the change is stored. */
  readonly gone?: (serverId: string) => void;
}

/**
 * `./DMAcc`, with a listener for servers that lose their accounts: by Delete, or by another ServerID. Such a server loses its rights
 * in the whole tree (OMA DM tree and description 1.2.1, section 7.7.1.4).
 */
export class AccountsBranch extends StoredBranch {
  readonly #lost = new Set<string>();
  #listener: AccountsListener | undefined;

  listen(listener: AccountsListener): void {
    this.#listener = listener;
  }

  override delete(path: NodePath): void {
    this.#watch(() => super.delete(path));
  }

  override replace(path: NodePath, node: NewNode): void {
    this.#watch(() => super.replace(path, node));
  }

  committed(): void {
    const left = this.#servers();
    const gone = [...this.#lost].filter((server) => !left.has(server));
    this.#lost.clear();
    for (const server of gone) this.#listener?.gone?.(server);
  }

  #watch(change: () => void): void {
    const before = this.#servers();
    change();
    const left = this.#servers();
    for (const server of before)
      if (!left.has(server)) {
        this.#lost.add(server);
        this.#listener?.lost(server);
      }
  }

  #servers(): Set<string> {
    const { children = [] } = this.view([]) ?? {};
    const names = children.flatMap((name) => this.text(name, 'ServerID') ?? []);
    return new Set(names.filter(isServerId));
  }
}
