import { readFileSync } from 'node:fs';
import { endianness } from 'node:os';

/** What Linux says of its network beyond what Node does. All of it is empty or absent elsewhere. */
export interface KernelNetwork {
  /** Index of each interface by its name. An interface that is made again under its old name has a new index. */
  readonly indexes: ReadonlyMap<string, number>;
  /**
   * IPv6 addresses that are not served: temporary ones (RFC 8981), which an account at a device would outlive, and
   * tentative ones, which may turn out to be duplicates. Without zones.
   */
  readonly passing: ReadonlySet<string>;
  /** Joined multicast groups by `membershipKey`; undefined when the kernel does not say. */
  readonly memberships: { readonly 4?: ReadonlySet<string>; readonly 6?: ReadonlySet<string> };
}

/** Returns the present state. Tests pass a function of their own. */
export type ReadKernelNetwork = () => KernelNetwork;

/** Flags of an IPv6 address (linux/if_addr.h). */
const temporary = 0x01;
const tentative = 0x40;

export const membershipKey = (index: number, group: string): string => `${index} ${group}`;

/** Reads `/proc/net` of this process's network namespace. */
export const readKernelNetwork: ReadKernelNetwork = () => {
  const indexes = new Map<string, number>();
  const passing = new Set<string>();
  for (const [hex = '', index, , , flags, name] of rowsOf('if_inet6') ?? []) {
    indexes.set(name!, Number.parseInt(index!, 16));
    if (Number.parseInt(flags!, 16) & (temporary | tentative)) passing.add(ipv6Of(hex));
  }
  const igmp = rowsOf('igmp');
  const groups4 = new Set<string>();
  let current = 0;
  for (const row of igmp?.slice(1) ?? []) {
    const [first = '', second = ''] = row;
    if (row.length < 5) groups4.add(membershipKey(current, ipv4Of(first)));
    else {
      current = Number(first);
      indexes.set(second.replace(/:$/, ''), current);
    }
  }
  const igmp6 = rowsOf('igmp6');
  const groups6 = new Set<string>();
  for (const [index, name, hex = ''] of igmp6 ?? []) {
    indexes.set(name!, Number(index));
    groups6.add(membershipKey(Number(index), ipv6Of(hex)));
  }
  return { indexes, passing, memberships: { ...(igmp && { 4: groups4 }), ...(igmp6 && { 6: groups6 }) } };
};

/** The columns of a file of `/proc/net`. Undefined when there is none. */
function rowsOf(file: string): string[][] | undefined {
  try {
    const text = readFileSync(`/proc/self/net/${file}`, 'utf8');
    return text
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => line.trim().split(/\s+/));
  } catch {
    return undefined;
  }
}

/** `fe80000000000000…` in the form of Node, `fe80::…`. */
const ipv6Of = (hex: string): string =>
  new URL(`coap://[${(hex.match(/.{4}/g) ?? []).join(':')}]`).hostname.slice(1, -1);

/** The kernel prints an IPv4 address as a number of the machine's byte order. */
function ipv4Of(hex: string): string {
  const octets = [...Buffer.from(hex, 'hex')];
  return (endianness() === 'LE' ? octets.toReversed() : octets).join('.');
}
