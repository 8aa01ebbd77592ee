import { DmError } from '../../dm/dm-error.ts';
import { OrderBranch } from '../../dm/order-branch.ts';
import { DmStatus } from '../../dm/status.ts';
import type { NewNode, NodeView, TreeBranch } from '../../dm/tree-branch.ts';
import type { NodePath } from '../../dm/uri.ts';
import { MoId } from '../../mo/identifiers.ts';
import type { CertificateKeeper } from './certificate-keeper.ts';

const leaves = {
  Request: (keeper: CertificateKeeper) => keeper.request,
  Chain: (keeper: CertificateKeeper) => keeper.chain,
  Expires: (keeper: CertificateKeeper) => keeper.view().expires,
  Problem: (keeper: CertificateKeeper) => keeper.view().problem ?? '',
};

interface Order {
  /** A chain of certificates in PEM. */
  readonly chain?: string;
}

/** `./GwCertificate`: how a DM server renews the certificate of an enrolled gateway (docs/gwmo.md). */
export class CertificateBranch extends OrderBranch<Order> implements TreeBranch {
  readonly #keeper: CertificateKeeper;

  constructor(keeper: CertificateKeeper) {
    super();
    this.#keeper = keeper;
  }

  view([leaf, ...more]: NodePath): NodeView | undefined {
    const permanent = true;
    if (leaf === undefined)
      return {
        format: 'node',
        type: MoId.GwCertificate,
        children: Object.keys(leaves),
        access: ['Get'],
        permanent,
      };
    if (more.length > 0 || !Object.hasOwn(leaves, leaf)) return undefined;
    const value = leaves[leaf as keyof typeof leaves](this.#keeper);
    return { format: 'chr', value, access: leaf === 'Chain' ? ['Get', 'Replace'] : ['Get'], permanent };
  }

  /** @throws {PosternError} `malformed` when it is not for this gateway and key; `storage` */
  replace([leaf]: NodePath, { value }: NewNode): void {
    if (leaf !== 'Chain' || value === undefined)
      throw new DmError(DmStatus.CommandNotAllowed, 'only a Chain can be written');
    const chain = typeof value === 'string' ? value : Buffer.from(value).toString();
    this.#keeper.check(chain);
    this.order({ chain });
  }

  protected override storing({ chain }: Order): void {
    if (chain !== undefined) this.#keeper.offer(chain);
  }

  protected override ordered({ chain }: Order): void {
    if (chain !== undefined) this.#keeper.tryNext();
  }
}
