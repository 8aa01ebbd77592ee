import { DmError } from '../../dm/dm-error.ts';
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

/**
 * `./GwCertificate`: how a DM server renews the certificate of an enrolled gateway (docs/gwmo.md). A certificate that is
 * written takes effect when its package is stored: one inside an Atomic that fails is not tried.
 */
export class CertificateBranch implements TreeBranch {
  readonly #keeper: CertificateKeeper;
  /** What each open level of changes writes. */
  readonly #levels: (string | undefined)[] = [];
  #final: string | undefined;

  constructor(keeper: CertificateKeeper) {
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
    const pem = typeof value === 'string' ? value : Buffer.from(value).toString();
    this.#keeper.check(pem);
    if (this.#levels.length > 0) this.#levels[this.#levels.length - 1] = pem;
    else {
      this.#keeper.offer(pem);
      this.#keeper.tryNext();
    }
  }

  begin(): void {
    this.#levels.push(undefined);
  }

  commit(): void {
    const written = this.#levels.pop();
    if (written === undefined) return;
    if (this.#levels.length > 0) this.#levels[this.#levels.length - 1] = written;
    else {
      this.#keeper.offer(written);
      this.#final = written;
    }
  }

  committed(): void {
    if (this.#final === undefined) return;
    this.#final = undefined;
    this.#keeper.tryNext();
  }

  rollback(): void {
    this.#levels.pop();
  }
}
