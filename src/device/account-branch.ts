import { isServerId } from '../dm/acl.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import type { NodePath } from '../dm/uri.ts';

/**
 * The branch `./DMAcc` of a device. A server whose account is deleted loses its rights in the whole tree (OMA DM tree and
 * description 1.2.1, section 7.7.1.4).
 */
export class AccountBranch extends StoredBranch {
  /** Called with the ServerID of an account that was deleted, in the same level of changes. */
  forget: (serverId: string) => void = () => {};

  override delete(path: NodePath): void {
    const [account = ''] = path;
    const serverId = path.length === 1 ? this.text(account, 'ServerID') : undefined;
    super.delete(path);
    if (serverId !== undefined && isServerId(serverId)) this.forget(serverId);
  }
}
