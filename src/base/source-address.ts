import { createSocket, type SocketOptions } from 'node:dgram';
import { isIP } from 'node:net';

/**
 * Lookup function for sockets whose addresses are all literals. Without this function, Node delays each operation by
 * one tick to resolve them. With it, `bind` and `connect` take effect at once.
 */
export const literalLookup: Pick<SocketOptions, 'lookup'> = {
  lookup: (host, _options, callback) => callback(null, host, host.includes(':') ? 6 : 4),
};

/** Any port other than 0: nothing is sent to it. */
const anyPort = 9;

/**
 * The local address from which the kernel would send to an IP address, by its routing table. A link-local IPv6 address has
 * its zone. Undefined when there is no route. Nothing is sent: a connected UDP socket only looks up its route.
 */
export function sourceAddressTowards(remote: string): string | undefined {
  const family = isIP(remote.replace(/%.*$/, ''));
  if (family === 0) return undefined;
  const unspecified = family === 6 ? '::' : '0.0.0.0';
  const socket = createSocket({ type: family === 6 ? 'udp6' : 'udp4', ...literalLookup });
  // The error of a connection that fails. The address is still unspecified then.
  socket.on('error', () => {});
  try {
    socket.bind({ port: 0, address: unspecified, exclusive: true });
    socket.connect(anyPort, remote);
    const { address } = socket.address();
    return address === unspecified ? undefined : address;
  } catch {
    // The machine has no addresses of this family.
    return undefined;
  } finally {
    socket.close();
  }
}
