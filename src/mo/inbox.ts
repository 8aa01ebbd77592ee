import { PosternError } from '../base/errors.ts';
import type { NewNode, NodeView, TreeBranch } from '../dm/tree-branch.ts';
import type { NodePath } from '../dm/uri.ts';
import { decodeTnds, isTndsType, type TndsNode } from '../wire/syncml/tnds.ts';
import { MoId } from './identifiers.ts';

/** Takes a management object that a server, or a bootstrap, put into the Inbox. */
export type Receiver = (object: TndsNode, serverId: string) => void;

/**
 * `./Inbox` (OMA DM standardized objects 1.2.1, section 5.3.4): a server adds an MO as TNDS, and the device finds the
 * place from the MO's identifier. It can be added to and nothing else.
 */
export class Inbox implements TreeBranch {
  readonly #receivers: Readonly<Record<string, Receiver>>;

  /** `receivers` by management object identifier. */
  constructor(receivers: Readonly<Record<string, Receiver>>) {
    this.#receivers = receivers;
  }

  /** What was put here is in another branch, which takes it back. */
  begin(): void {}

  commit(): void {}

  rollback(): void {}

  view(path: NodePath): NodeView | undefined {
    if (path.length > 0) return undefined;
    return { format: 'node', type: MoId.Inbox, children: [], access: ['Add'] };
  }

  /** @throws {PosternError} `unsupportedFormat`, `malformed`, `notFound` for an object that nobody here knows */
  deposit({ type, value }: NewNode, serverId: string): void {
    if (!isTndsType(type))
      throw new PosternError('unsupportedFormat', `the Inbox takes TNDS objects, not ${type}`);
    const { root } = decodeTnds(value ?? '');
    const receiver = root.type === undefined ? undefined : this.#receivers[root.type];
    if (!receiver) throw new PosternError('notFound', `no place for an object ${root.type}`);
    receiver(root, serverId);
  }
}
