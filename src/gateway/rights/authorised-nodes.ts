import { hashedName } from '../../base/hashed-name.ts';
import type { NodePath } from '../../dm/uri.ts';
import type { Accounts } from '../../mo/dm-acc.ts';
import { nodeAt, type Vocabulary } from '../../mo/vocabulary.ts';
import type { AuthorisationParts } from './authorisation.ts';

/** Where the ACL of each kind of object is in the gateway's tree (`ObjectKind`). */
export function authorisedNodes(
  vocabulary: Vocabulary,
  accounts: Pick<Accounts, 'nodeName'>,
): AuthorisationParts['nodeOf'] {
  const pathOf = (...args: [object: Parameters<typeof nodeAt>[1], ...names: string[]]): NodePath =>
    nodeAt(vocabulary, ...args)
      .split('/')
      .slice(1);
  const lists = {
    device: pathOf('GwDeviceInventory', 'Records'),
    group: pathOf('GwDeviceInventory', 'Groups'),
    image: pathOf('GwImageInventory', 'Images'),
    account: ['DMAcc'],
  };
  return (kind, name) => {
    const node = kind === 'device' ? hashedName(name) : kind === 'account' ? accounts.nodeName(name) : name;
    return [...lists[kind], node ?? ''];
  };
}
