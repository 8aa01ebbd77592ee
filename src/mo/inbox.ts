import { PosternError } from '../base/errors.ts';
import { DmError } from '../dm/dm-error.ts';
import { DmStatus } from '../dm/status.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { decodeTndsRoots, isTndsType, type TndsNode } from '../wire/syncml/tnds.ts';
import { MoId } from './identifiers.ts';

/** Takes a management object that a server or a bootstrap added to the Inbox. */
export type Receiver = (object: TndsNode, serverId: string) => void;

/**
 * `./Inbox` (OMA DM standardized objects 1.2.1, section 5.3.4). A server adds a management object as TNDS, and the
 * device finds its place in the tree by the object's identifier. Add is the only command that the Inbox allows.
 */
export class Inbox implements TreeBranch {
  readonly #receivers: Readonly<Record<string, Receiver>>;

  /** @param receivers receiver of each kind of object, by management object identifier */
  constructor(receivers: Readonly<Record<string, Receiver>>) {
    this.#receivers = receivers;
  }

  /** The Inbox has nothing to undo. An added object is in another branch, which undoes its own changes. */
  begin(): void {}

  commit(): void {}

  rollback(): void {}

  /** @throws {DmError} 405 below the Inbox, where no node can be addressed */
  view(path: NodePath): NodeView {
    if (path.length > 0)
      throw new DmError(DmStatus.CommandNotAllowed, 'no node below the Inbox has an address');
    return { format: 'node', type: MoId.Inbox, children: [], access: ['Add'] };
  }

  /**
   * Hands an added object to its receiver. Of several objects (DM Bootstrap 1.2, section 5.4.5) those count that this device has
   * a place for: an account comes with connectivity objects.
   * @throws {PosternError} `unsupportedFormat` when it is not TNDS, `malformed`, `notFound` for an unknown object
   * @throws what the receiver throws
   */
  deposit({ type, value }: NewNode, serverId: string): void {
    if (!isTndsType(type))
      throw new PosternError('unsupportedFormat', `the Inbox takes TNDS objects, not ${type}`);
    const roots = decodeTndsRoots(value ?? '').map(({ root }) => root);
    const known = roots.flatMap((root) => {
      const receiver = root.type === undefined ? undefined : this.#receivers[root.type];
      return receiver ? [() => receiver(root, serverId)] : [];
    });
    if (known.length === 0)
      throw new PosternError(
        'notFound',
        `no place for an object ${roots.map(({ type }) => type).join(', ')}`,
      );
    for (const receive of known) receive();
  }
}
