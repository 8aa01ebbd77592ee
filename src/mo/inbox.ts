import { PosternError } from '../base/errors.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { decodeTnds, isTndsType, type TndsNode } from '../wire/syncml/tnds.ts';
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

  view(path: NodePath): NodeView | undefined {
    if (path.length > 0) return undefined;
    return { format: 'node', type: MoId.Inbox, children: [], access: ['Add'] };
  }

  /**
   * Hands an added object to its receiver.
   * @throws {PosternError} `unsupportedFormat` when it is not TNDS, `malformed`, `notFound` for an unknown object
   * @throws what the receiver throws
   */
  deposit({ type, value }: NewNode, serverId: string): void {
    if (!isTndsType(type))
      throw new PosternError('unsupportedFormat', `the Inbox takes TNDS objects, not ${type}`);
    const { root } = decodeTnds(value ?? '');
    const receiver = root.type === undefined ? undefined : this.#receivers[root.type];
    if (!receiver) throw new PosternError('notFound', `no place for an object ${root.type}`);
    receiver(root, serverId);
  }
}
