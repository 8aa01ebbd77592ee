import { DmStatus } from '../../dm/status.ts';
import type { NewNode, NodeView, TreeBranch } from '../../dm/tree-branch.ts';
import type { NodePath } from '../../dm/uri.ts';
import { MoId } from '../../mo/identifiers.ts';
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

  view([leaf, ...more]: NodePath): NodeView | undefined {
    const permanent = true;
    if (leaf === undefined)
      return {
        format: 'node',
        type: MoId.GwOwner,
        children: ['Server', 'Problem', 'Transfer', 'Decommission'],
        access: ['Get'],
        permanent,
      };
    if (more.length > 0) return undefined;
    const { server, problem } = this.#ownership;
    if (leaf === 'Server' || leaf === 'Problem')
      return { format: 'chr', value: leaf === 'Server' ? server : problem, access: ['Get'], permanent };
    if (leaf === 'Transfer') return { format: 'chr', access: ['Exec'], permanent };
    return leaf === 'Decommission' ? { format: 'null', access: ['Exec'], permanent } : undefined;
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
