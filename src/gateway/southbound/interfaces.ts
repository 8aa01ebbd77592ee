import { BlockList, isIPv6 } from 'node:net';
import type { networkInterfaces } from 'node:os';

/** An IP address of this machine that the gateway serves. */
export interface LocalAddress {
  readonly interfaceName: string;
  /** A link-local IPv6 address has its zone: `fe80::1%eth0`. */
  readonly address: string;
  readonly family: 4 | 6;
  /** Address with prefix length, such as `192.0.2.1/24`. */
  readonly cidr: string;
}

/** Returns the current addresses of the machine. Tests pass a function of their own. */
export type ListInterfaces = typeof networkInterfaces;

/** The addresses of the named interfaces; with an empty list, of all interfaces, loopback included. */
export function localAddresses(names: readonly string[], list: ListInterfaces): LocalAddress[] {
  return Object.entries(list()).flatMap(([interfaceName, addresses = []]) =>
    names.length > 0 && !names.includes(interfaceName)
      ? []
      : addresses.map(({ address, family, cidr }) => ({
          interfaceName,
          address: address.startsWith('fe80:') ? `${address}%${interfaceName}` : address,
          family: family === 'IPv6' ? (6 as const) : (4 as const),
          cidr: cidr ?? address,
        })),
  );
}

/**
 * The local address on the same link as the remote address (same zone or subnet), else the first of its family.
 * Undefined when there is no local address of its family.
 */
export function addressTowards<T extends LocalAddress>(locals: readonly T[], remote: string): T | undefined {
  const family = isIPv6(remote) ? 6 : 4;
  const candidates = locals.filter((local) => local.family === family);
  const [, zone] = remote.split('%');
  if (zone) return candidates.find(({ address }) => address.endsWith(`%${zone}`)) ?? candidates[0];
  return candidates.find(({ cidr }) => isWithin(remote, cidr)) ?? candidates[0];
}

function isWithin(address: string, cidr: string): boolean {
  const [network = '', prefix] = cidr.split('/');
  if (prefix === undefined) return network === address;
  const family = isIPv6(address) ? 'ipv6' : 'ipv4';
  const subnet = new BlockList();
  subnet.addSubnet(network, Number(prefix), family);
  return subnet.check(address, family);
}
