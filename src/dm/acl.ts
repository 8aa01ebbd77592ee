import { DmError } from './dm-error.ts';
import { DmStatus } from './status.ts';

export const rights = ['Add', 'Delete', 'Exec', 'Get', 'Replace'] as const;
export type Right = (typeof rights)[number];

const isRight = (name: string): name is Right => (rights as readonly string[]).includes(name);

/** Who may do what at a node (OMA DM tree and description 1.2.1, section 7.7.1). ServerIDs by right; `*` is everyone. */
export type Acl = ReadonlyMap<Right, ReadonlySet<string>>;

/**
 * Reads `Get=*&Replace=one+two`.
 * @throws {DmError} 400
 */
export function parseAcl(text: string): Acl {
  const acl = new Map<Right, ReadonlySet<string>>();
  if (text === '') return acl;
  for (const entry of text.split('&')) {
    const [name = '', ids = ''] = entry.split('=');
    if (!isRight(name) || ids === '' || acl.has(name))
      throw new DmError(DmStatus.BadRequest, `no ACL: ${text}`);
    acl.set(name, new Set(ids.split('+')));
  }
  return acl;
}

export const allows = (acl: Acl, right: Right, serverId: string): boolean => {
  const holders = acl.get(right);
  return holders !== undefined && (holders.has('*') || holders.has(serverId));
};

/** The same ACL without this server; empty when nobody is left. */
export function scrubbed(text: string, serverId: string): string {
  const left = [...parseAcl(text)].flatMap(([right, ids]) => {
    const others = [...ids].filter((id) => id !== serverId);
    return others.length > 0 ? [`${right}=${others.join('+')}`] : [];
  });
  return left.join('&');
}
