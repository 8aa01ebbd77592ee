import { createSocket, type Socket } from 'node:dgram';
import { lookup } from 'node:dns';
import { once } from 'node:events';
import { isIP, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';
import { createServer, type IncomingMessage, type OutgoingMessage, type Server } from 'coap';
import { PosternError } from '../base/errors.ts';
import { sourceAddressTowards } from '../base/source-address.ts';
import { CheckedAgent } from './checked-agent.ts';

/** Multicast groups "All CoAP Nodes" (RFC 7252 section 12.8): IPv4, IPv6 link-local, site-local. */
const groups = { 4: ['224.0.1.187'], 6: ['ff02::fd', 'ff05::fd'] } as const;
const unspecified = { 4: '0.0.0.0', 6: '::' } as const;

/** Client and server for one family of addresses, which share a socket. */
export interface FamilySocket {
  readonly family: 4 | 6;
  readonly socket: Socket;
  readonly agent: CheckedAgent;
  readonly server: Server;
}

/** A multicast group on one interface. */
export interface GroupTarget {
  readonly agent: CheckedAgent;
  /** Address of the group. */
  readonly host: string;
  /** Makes the socket send to the group by this interface. Must be called right before each request. */
  readonly select: () => void;
}

/** What the sockets call. Neither throws. */
export interface SocketListener {
  /** Handles a request that arrives at one of the sockets. */
  readonly request: (request: IncomingMessage, response: OutgoingMessage) => void;
  /** Takes an error for which no request waits. */
  readonly failed: (error: unknown) => void;
  /** Puts something under a new socket; nothing if absent. */
  readonly under?: ((socket: Socket) => void) | undefined;
}

const isLinkLocal = (address: string): boolean => /^fe[89ab].:/i.test(address);
const zoneOf = (address: string): string | undefined => address.split('%')[1];

/**
 * The UDP sockets of the device: one for an address, or one for IPv4 and one for IPv6. A socket without an address of its
 * own sends from whatever address the machine has at that time.
 */
export class CoapSockets implements AsyncDisposable {
  /** Configured: an IP address, the name of an interface, or neither. */
  readonly #interface: string | undefined;
  readonly #listener: SocketListener;
  readonly #open: FamilySocket[] = [];
  /** Interface of the link-local address that was used last. */
  #zone: string | undefined;

  constructor(where: string | undefined, listener: SocketListener) {
    this.#interface = where;
    this.#listener = listener;
    if (where !== undefined) this.#zone = isIP(where.replace(/%.*$/, '')) > 0 ? zoneOf(where) : where;
  }

  /**
   * Binds the sockets to free ports.
   * @throws {PosternError} `configuration` when no address can be used
   */
  async open(): Promise<void> {
    const address = this.address;
    const families = address === undefined ? ([4, 6] as const) : ([isIPv6(address) ? 6 : 4] as const);
    const failures: unknown[] = [];
    for (const family of families)
      try {
        this.#open.push(await this.#bind(family, address ?? unspecified[family]));
      } catch (cause) {
        // A machine may have one family only.
        failures.push(cause);
      }
    if (this.#open.length > 0) return;
    throw new PosternError('configuration', `network.interface: ${this.#interface ?? '*'} cannot be used`, {
      cause: failures[0],
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      this.#open.splice(0).map(async ({ socket, agent, server }) => {
        server.close();
        agent.close();
        const closed = once(socket, 'close');
        socket.close();
        await closed;
      }),
    );
  }

  /**
   * The socket for a host. A link-local address may be without a zone: then the zone of the one before is meant.
   * @throws {PosternError} `unavailable` when there is none for this family
   */
  towards(host: string): FamilySocket {
    if (isLinkLocal(host)) this.#zone = zoneOf(host) ?? this.#zone;
    const family = isIP(host.replace(/%.*$/, ''));
    const found = family === 0 ? this.#open[0] : this.#open.find((one) => one.family === family);
    if (!found) throw new PosternError('unavailable', `no socket for ${host}`);
    return found;
  }

  /** The own address and port as a host sees them; undefined without a way to that host. */
  sourceTowards(host: string): { readonly address: string; readonly port: number } | undefined {
    const family = isIPv6(host) ? 6 : 4;
    const found = this.#open.find((one) => one.family === family);
    if (!found) return undefined;
    const { address, port } = found.socket.address();
    const source = address === unspecified[family] ? sourceAddressTowards(this.#zoned(host)) : address;
    return source === undefined ? undefined : { address: source, port };
  }

  /**
   * All multicast groups, on each interface on which they can be reached. IPv6 has no multicast on the loopback interface
   * (Linux): there the address itself stands for the groups.
   */
  groups(): GroupTarget[] {
    return this.#open.flatMap(({ family, agent, socket }) =>
      this.#interfaces(family).flatMap(({ name, address, internal }) =>
        (family === 6 && internal ? [address] : groups[family]).map((group) => ({
          agent,
          host: group.startsWith('ff02:') ? `${group}%${name}` : group,
          select: () => socket.setMulticastInterface(family === 6 ? `::%${name}` : address),
        })),
      ),
    );
  }

  /** The configured address; undefined for all addresses, also of a named interface. */
  get address(): string | undefined {
    const where = this.#interface;
    return where !== undefined && isIP(where.replace(/%.*$/, '')) > 0 ? where : undefined;
  }

  async #bind(family: 4 | 6, address: string): Promise<FamilySocket> {
    const socket = createSocket({
      type: family === 6 ? 'udp6' : 'udp4',
      ipv6Only: family === 6,
      // A literal is used at once, and a link-local one with its zone.
      lookup: (host, _options, callback) => {
        if (isIP(host.replace(/%.*$/, '')) > 0) callback(null, this.#zoned(host), family);
        else lookup(host, family, callback);
      },
    });
    try {
      const listening = once(socket, 'listening');
      socket.bind(0, address);
      await listening;
    } catch (cause) {
      socket.close();
      throw cause;
    }
    const { request, failed, under } = this.#listener;
    under?.(socket);
    const agent = new CheckedAgent({ socket });
    const server = createServer(request);
    agent.on('error', failed);
    server.on('error', failed);
    server.listen(socket);
    return { family, socket, agent, server };
  }

  #zoned(host: string): string {
    if (!isLinkLocal(host) || zoneOf(host) !== undefined) return host;
    const [first] = this.#interfaces(6).map(({ name }) => name);
    const zone = this.#zone ?? first;
    return zone === undefined ? host : `${host}%${zone}`;
  }

  /** The interfaces of the sockets, each with an address. Loopback only when it was asked for or there is no other. */
  #interfaces(family: 4 | 6): { readonly name: string; readonly address: string; internal: boolean }[] {
    const all = Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
      addresses
        .filter((one) => one.family === `IPv${family}`)
        .map(({ address, internal }) => ({ name, address, internal })),
    );
    const where = this.address?.replace(/%.*$/, '');
    const isAny = where === undefined || where === unspecified[4] || where === unspecified[6];
    const name = zoneOf(this.#interface ?? '') ?? (where === undefined ? this.#interface : undefined);
    const chosen = all.filter((one) => (isAny || one.address === where) && one.name === (name ?? one.name));
    const isExternal = chosen.some(({ internal }) => !internal);
    const byName = new Map(
      chosen.filter(({ internal }) => !internal || !isExternal).map((one) => [one.name, one]),
    );
    return [...byName.values()];
  }
}
