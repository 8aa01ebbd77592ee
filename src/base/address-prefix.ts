import { isIPv6 } from 'node:net';

/**
 * The network that an IP address is counted with: its /24 (IPv4) or its /64 (IPv6, with the zone). One host may have many
 * addresses in such a network. Any other text is its own prefix.
 */
export function prefixOf(address: string): string {
  const mapped = address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
  if (!mapped.includes(':')) return mapped.includes('.') ? mapped.slice(0, mapped.lastIndexOf('.')) : mapped;
  const [plain = '', zone = ''] = mapped.split('%');
  const [front = '', back] = plain.split('::');
  const head = front === '' ? [] : front.split(':');
  const tail = back ? back.split(':') : [];
  const gap = back === undefined ? [] : Array<string>(Math.max(0, 8 - head.length - tail.length)).fill('0');
  return `${[...head, ...gap, ...tail].slice(0, 4).join(':')}%${zone}`;
}

/**
 * The sender that an IP address stands for: an IPv4 address itself, but the /64 of an IPv6 address (`prefixOf`), because one
 * host may use any address in its /64. Any other text stands for itself.
 */
export const senderOf = (address: string): string =>
  address.includes(':') && isIPv6(address.replace(/%.*$/, '')) ? prefixOf(address) : address;
