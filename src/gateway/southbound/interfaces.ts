import { BlockList, isIPv6 } from 'node:net';
import type { networkInterfaces } from 'node:os';
import type { KernelNetwork } from './kernel-network.ts';

/** An IP address of this machine that the gateway serves. */
export interface LocalAddress {
  readonly interfaceName: string;
  /** Index of the interface in the kernel; undefined when the kernel does not say. */
  readonly interfaceIndex: number | undefined;
  /** A link-local IPv6 address has its zone: `fe80::1%eth0`. */
  readonly address: string;
  readonly family: 4 | 6;
  /** Address with prefix length, such as `192.0.2.1/24`. */
  readonly cidr: string;
}

/** Returns the current addresses of the machine. Tests pass a function of their own. */
export type ListInterfaces = typeof networkInterfaces;

const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIPv6(address) ? 'ipv6' : 'ipv4');
export const isLoopback = (address: string): boolean =>
  address === '::1' || /^(::ffff:)?127\./i.test(address);
const isLinkLocal = (address: string): boolean => /^fe[89ab].:/i.test(address);

/** Identifies an interface of the kernel. An interface that is made again, or renamed, is another one. */
export const interfaceKey = ({ interfaceName, interfaceIndex }: LocalAddress): string =>
  `${interfaceIndex ?? ''} ${interfaceName}`;

/**
 * The addresses of the named interfaces; with an empty list, of all interfaces, loopback included. An address that
 * several interfaces have is listed once.
 */
export function localAddresses(
  names: readonly string[],
  list: ListInterfaces,
  { indexes, passing }: Pick<KernelNetwork, 'indexes' | 'passing'>,
): LocalAddress[] {
  const found = new Map<string, LocalAddress>();
  for (const [interfaceName, addresses = []] of Object.entries(list())) {
    if (names.length > 0 && !names.includes(interfaceName)) continue;
    for (const { address: plain, family, cidr } of addresses) {
      const address = isLinkLocal(plain) ? `${plain}%${interfaceName}` : plain;
      if (found.has(address) || passing.has(plain)) continue;
      found.set(address, {
        interfaceName,
        interfaceIndex: indexes.get(interfaceName),
        address,
        family: family === 'IPv6' ? 6 : 4,
        cidr: cidr ?? plain,
      });
    }
  }
  return [...found.values()];
}

/** Where the kernel's routing leads. */
export interface Routing {
  /** The address from which the kernel would send to `remote`; see `sourceAddressTowards`. */
  readonly sourceTowards: (remote: string) => string | undefined;
  /** Name of the interface that has a local address. */
  readonly interfaceOf: (local: string) => string | undefined;
}

/**
 * The local address to use for a remote address: one in its zone or in its subnet, else the one that the kernel's routing
 * chooses, else any that could have a route. Never a loopback address for a remote address that is none. Undefined when
 * nothing suits.
 */
export function addressTowards<T extends LocalAddress>(
  locals: readonly T[],
  remote: string,
  { sourceTowards, interfaceOf }: Routing,
): T | undefined {
  const ofFamily = locals.filter(({ family }) => family === (isIPv6(remote) ? 6 : 4));
  if (isLoopback(remote)) return ofFamily.find(({ address }) => isLoopback(address)) ?? ofFamily[0];
  const candidates = ofFamily.filter(({ address }) => !isLoopback(address));
  const [, zone] = remote.split('%');
  if (isLinkLocal(remote)) {
    const inZone = zone ? candidates.filter(({ interfaceName }) => interfaceName === zone) : candidates;
    return inZone.find(({ address }) => isLinkLocal(address)) ?? inZone[0];
  }
  const routable = candidates.filter(({ address }) => !isLinkLocal(address));
  const onLink = routable
    .filter(({ cidr }) => isWithin(remote, cidr))
    .toSorted((a, b) => prefixOf(b.cidr) - prefixOf(a.cidr))[0];
  if (onLink) return onLink;
  const source = sourceTowards(remote);
  const link = source === undefined ? undefined : interfaceOf(source);
  return (
    routable.find(({ address }) => address === source) ??
    routable.find(({ interfaceName }) => interfaceName === link) ??
    routable[0]
  );
}

const prefixOf = (cidr: string): number => Number(cidr.split('/')[1] ?? 128);

function isWithin(address: string, cidr: string): boolean {
  const [network = '', prefix] = cidr.split('/');
  if (prefix === undefined) return network === address;
  const subnet = new BlockList();
  subnet.addSubnet(network, Number(prefix), familyOf(address));
  return subnet.check(address, familyOf(address));
}
