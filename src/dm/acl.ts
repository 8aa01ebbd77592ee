import { DmError } from './dm-error.ts';
import { DmStatus } from './status.ts';

/** The rights that an ACL can give. Each right is named after the command that it allows. */
export const rights = ['Add', 'Delete', 'Exec', 'Get', 'Replace'] as const;
export type Right = (typeof rights)[number];

const isRight = (name: string): name is Right => (rights as readonly string[]).includes(name);

/**
 * Whether an ACL can name this server. A name with the separators of ACLs would give rights to others, `*` would be all servers,
 * and names that begin with a slash are no servers: a device uses one for its bootstrap.
 */
export const isServerId = (name: string): boolean => /^[^+&=*/\p{C}][^+&=*\p{C}]{0,254}$/u.test(name);

/**
 * An access control list (OMA DM tree and description 1.2.1, section 7.7.1): for each right the ServerIDs that hold it.
 * `*` stands for all servers.
 */
export type Acl = ReadonlyMap<Right, ReadonlySet<string>>;

/**
 * Reads an ACL such as `Get=*&Replace=one+two`. An empty text is an ACL that gives no rights.
 * @throws {DmError} 400 for an unknown or repeated right, or a right without a ServerID
 */
export function parseAcl(text: string): Acl {
  const acl = new Map<Right, ReadonlySet<string>>();
  if (text === '') return acl;
  for (const entry of text.split('&')) {
    const [name = '', ids = '', ...rest] = entry.split('=');
    if (!isRight(name) || ids === '' || rest.length > 0 || acl.has(name))
      throw new DmError(DmStatus.BadRequest, `not an ACL: ${text}`);
    acl.set(name, new Set(ids.split('+')));
  }
  return acl;
}

/**
 * Reads an ACL that another party gives.
 * @throws {DmError} 400 for a text that is not an ACL, or names what can be no server
 */
export function demandAcl(text: string): void {
  for (const [, ids] of parseAcl(text))
    for (const id of ids)
      if (id !== '*' && !isServerId(id)) throw new DmError(DmStatus.BadRequest, `not an ACL: ${text}`);
}

/** Whether the ACL gives the server this right. */
export const allows = (acl: Acl, right: Right, serverId: string): boolean => {
  const holders = acl.get(right);
  return holders !== undefined && (holders.has('*') || holders.has(serverId));
};

/** The ACL with these rights of this server besides, as text. */
export function withServer(acl: Acl, added: readonly Right[], serverId: string): string {
  const wanted = new Map(added.map((right) => [right, new Set<string>([serverId])]));
  return rights
    .flatMap((right) => {
      const holders = [...new Set([...(acl.get(right) ?? []), ...(wanted.get(right) ?? [])])];
      return holders.length > 0 ? [`${right}=${holders.join('+')}`] : [];
    })
    .join('&');
}

/** The ACL without this server, as text. Empty when no server is left. */
export function withoutServer(text: string, serverId: string): string {
  const left = [...parseAcl(text)].flatMap(([right, ids]) => {
    const others = [...ids].filter((id) => id !== serverId);
    return others.length > 0 ? [`${right}=${others.join('+')}`] : [];
  });
  return left.join('&');
}
