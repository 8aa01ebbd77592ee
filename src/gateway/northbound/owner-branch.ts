import { OrderBranch } from '../../dm/order-branch.ts';
import { DmStatus } from '../../dm/status.ts';
import type { NewNode, NodeView, TreeBranch } from '../../dm/tree-branch.ts';
import type { NodePath } from '../../dm/uri.ts';
import { MoId } from '../../mo/identifiers.ts';
import type { Ownership } from './ownership.ts';

interface Order {
  /** What is done when the order is stored. */
  readonly begin?: () => void;
}

/** `./GwOwner`: how the owner ends its relation to a gateway (docs/gwmo.md). */
export class OwnerBranch extends OrderBranch<Order> implements TreeBranch {
  readonly #ownership: Ownership;

  constructor(ownership: Ownership) {
    super();
    this.#ownership = ownership;
  }

  view([leaf, ...more]: NodePath): NodeView | undefined {
    const permanent = true;
    if (leaf === undefined)
      return {
        format: 'node',
        type: MoId.GwOwner,
        children: ['Server', 'Problem', 'Transfer', 'Withdraw', 'Decommission'],
        access: ['Get'],
        permanent,
      };
    if (more.length > 0) return undefined;
    const { server, problem } = this.#ownership;
    if (leaf === 'Server' || leaf === 'Problem')
      return { format: 'chr', value: leaf === 'Server' ? server : problem, access: ['Get'], permanent };
    if (leaf === 'Transfer') return { format: 'chr', access: ['Exec'], permanent };
    return leaf === 'Decommission' || leaf === 'Withdraw'
      ? { format: 'null', access: ['Exec'], permanent }
      : undefined;
  }

  /** @throws {PosternError} `forbidden` for another server than the owner, `conflict`, `malformed`, `storage` */
  exec([leaf = '']: NodePath, { value }: NewNode, _: string | undefined, by: string): number {
    const { begin } = this.#ownership.order(leaf, String(value ?? ''), by);
    this.order({ begin });
    return DmStatus.AcceptedForProcessing;
  }

  protected override ordered({ begin }: Order): void {
    begin?.();
  }
}
