import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
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

export interface OwnerBranchParts {
  /** ServerID of the owner. */
  readonly server: string;
  /** Only where the gateway is enrolled. */
  readonly ownership: Ownership | undefined;
  /** Checks an order to reset the gateway, and returns what is done when it is final. */
  readonly reset: (name: string, by: string) => () => void;
  readonly events: Events;
}

/** `./GwOwner`: how the owner resets a gateway, and ends its relation to it (docs/gwmo.md). */
export class OwnerBranch extends OrderBranch<Order> implements TreeBranch {
  readonly #parts: OwnerBranchParts;

  constructor(parts: OwnerBranchParts) {
    super();
    this.#parts = parts;
  }

  view([leaf, ...more]: NodePath): NodeView | undefined {
    const permanent = true;
    const { server, ownership } = this.#parts;
    if (leaf === undefined)
      return {
        format: 'node',
        type: MoId.GwOwner,
        children: ['Server', 'Reset', ...(ownership ? ofEnrolled : [])],
        access: ['Get'],
        permanent,
      };
    if (more.length > 0 || (!ownership && ofEnrolled.includes(leaf))) return undefined;
    if (leaf === 'Server' || leaf === 'Problem') {
      const value = leaf === 'Server' ? server : (ownership?.problem ?? '');
      return { format: 'chr', value, access: ['Get'], permanent };
    }
    if (leaf === 'Transfer' || leaf === 'Reset') return { format: 'chr', access: ['Exec'], permanent };
    return leaf === 'Decommission' || leaf === 'Withdraw'
      ? { format: 'null', access: ['Exec'], permanent }
      : undefined;
  }

  /** @throws {PosternError} `forbidden` for another server than the owner, `conflict`, `malformed`, `storage` */
  exec([leaf = '']: NodePath, { value }: NewNode, _: string | undefined, by: string): number {
    const { server, ownership, reset, events } = this.#parts;
    if (by !== server) {
      const reason = `this gateway belongs to ${server}`;
      events.emit('departure.refused', { server: by, reason });
      throw new PosternError('forbidden', reason);
    }
    const data = String(value ?? '');
    if (leaf === 'Reset') this.order({ begin: reset(data, by) });
    else if (ownership) this.order(ownership.order(leaf, data));
    return DmStatus.AcceptedForProcessing;
  }

  protected override ordered({ begin }: Order): void {
    begin?.();
  }
}

/** Nodes that only an enrolled gateway has. */
const ofEnrolled: readonly string[] = ['Problem', 'Transfer', 'Withdraw', 'Decommission'];
