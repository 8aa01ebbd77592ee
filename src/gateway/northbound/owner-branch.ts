import { DmStatus } from '../../dm/status.ts';
import type { NewNode, NodeView, TreeBranch } from '../../dm/tree-branch.ts';
import type { NodePath } from '../../dm/uri.ts';
import { gwOwner } from '../../mo/gw-owner.ts';
import { describe } from '../../wire/syncml/ddf.ts';
import type { Ownership } from './ownership.ts';

/** What is done when the order is stored. */
type Order = () => void;

/**
 * `./GwOwner`: how the owner ends its relation to a gateway (docs/gwmo.md). An order takes effect when its package is stored:
 * an Exec inside an Atomic that fails ends nothing.
 */
export class OwnerBranch implements TreeBranch {
  readonly #ownership: Ownership;
  readonly #levels: (Order | undefined)[] = [];
  #final: Order | undefined;

  constructor(ownership: Ownership) {
    this.#ownership = ownership;
  }

  view(path: NodePath): NodeView | undefined {
    const description = describe(gwOwner.root, path);
    if (!description) return undefined;
    const { access, format } = description;
    const permanent = true;
    const [leaf] = path;
    if (leaf === undefined)
      return {
        format: 'node',
        type: gwOwner.id,
        children: Object.keys(gwOwner.root.children ?? {}),
        access,
        permanent,
      };
    const { server, problem } = this.#ownership;
    const values: Readonly<Record<string, string>> = { Server: server, Problem: problem };
    return { format, access, permanent, ...(leaf in values && { value: values[leaf]! }) };
  }

  /** @throws {PosternError} `forbidden` for another server than the owner, `malformed`, `storage` */
  exec([leaf]: NodePath, { value }: NewNode, _: string | undefined, by: string): number {
    const { begin } = this.#ownership.order(leaf === 'Transfer' ? String(value ?? '') : undefined, by);
    this.begin();
    this.#levels[this.#levels.length - 1] = begin;
    this.commit();
    if (this.#levels.length === 0) this.committed();
    return DmStatus.AcceptedForProcessing;
  }

  begin(): void {
    this.#levels.push(undefined);
  }

  commit(): void {
    const order = this.#levels.pop();
    if (!order) return;
    if (this.#levels.length > 0) this.#levels[this.#levels.length - 1] = order;
    else this.#final = order;
  }

  committed(): void {
    const order = this.#final;
    this.#final = undefined;
    order?.();
  }

  rollback(): void {
    this.#levels.pop();
  }
}
