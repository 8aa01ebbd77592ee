import { createSocket, type Socket, type SocketOptions } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { CoapEndpoint, type EndpointLimits } from '../../wire/coap/endpoint.ts';
import type { Handler } from '../../wire/coap/message.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { addressTowards, type ListInterfaces, type LocalAddress, localAddresses } from './interfaces.ts';

/** All CoAP Nodes (RFC 7252 section 12.8; RFC 9176 does not change it): IPv4, IPv6 link-local and site-local. */
const group4 = '224.0.1.187';
const groups6 = ['ff02::fd', 'ff05::fd'];

/** Bytes of datagrams that wait in the kernel, which gives as much of it as its own limit allows: a storm comes in bursts. */
const recvBufferSize = 4 * 1024 * 1024;

/** Milliseconds between looks at the interfaces. */
const watchEvery = 5000;

/** What is special to one local address: for resources that speak of the address they are asked at, or of the advertised one. */
export interface LocalEndpoint {
  readonly address: string;
  readonly port: number;
  /** There when the first request comes, but not yet while the handler is made. */
  readonly endpoint: () => CoapEndpoint;
}

export interface CoapNetworkOptions {
  /** UDP port; 0 takes a free one, the same for all addresses. */
  readonly port: number;
  /** Names of the interfaces to serve; all when empty. They may come later. */
  readonly interfaces: readonly string[];
  readonly multicast: boolean;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** How devices reach this gateway, where that is not the address that they are answered at. */
  readonly advertise?: { readonly address: string; readonly port: number } | undefined;
  readonly limits?: Partial<EndpointLimits>;
  readonly listInterfaces?: ListInterfaces;
}

/** Makes the request handler of the endpoint at one local address. */
export type Compose = (local: LocalEndpoint) => Handler;

interface Binding extends LocalAddress {
  readonly socket: Socket;
  readonly endpoint: CoapEndpoint;
}

/**
 * The gateway's CoAP endpoints on its sockets. Each local address has a socket of its own, so that an answer leaves from
 * the address that was asked, and groups have sockets bound to the group, since a socket cannot tell otherwise how a
 * datagram came. Interfaces are looked at again and again: they may come late, and their addresses change.
 */
export class CoapNetwork implements AsyncDisposable {
  readonly #options: CoapNetworkOptions;
  readonly #bindings = new Map<string, Binding>();
  readonly #groups = new Map<string, Socket>();
  readonly #memberships = new Set<string>();
  #compose: Compose | undefined;
  #port: number;
  #watch: Timer | undefined;
  #stopped = false;

  constructor(options: CoapNetworkOptions) {
    this.#options = options;
    this.#port = options.port;
  }

  get port(): number {
    return this.#port;
  }

  get addresses(): readonly LocalAddress[] {
    return [...this.#bindings.values()];
  }

  get endpoints(): CoapEndpoint[] {
    return [...this.#bindings.values()].map(({ endpoint }) => endpoint);
  }

  /** The endpoint that reaches this address, when there is one now. */
  towards(remote: string): CoapEndpoint | undefined {
    return addressTowards([...this.#bindings.values()], remote)?.endpoint;
  }

  /**
   * URI of a path here, for who is at this address, or for anybody.
   * @throws {PosternError} `unavailable` without an address
   */
  uriTowards(remote: string | undefined, path: string): string {
    const { advertise } = this.#options;
    if (advertise) return coapUri(advertise.address, advertise.port, path);
    const bindings = [...this.#bindings.values()];
    const local = remote === undefined ? bindings[0] : addressTowards(bindings, remote);
    if (!local) throw new PosternError('unavailable', 'the gateway has no address');
    return coapUri(local.address, this.#port, path);
  }

  /**
   * Binds the addresses that are there, and from now on those that come.
   * @throws {PosternError} `configuration` when the port of an address is taken
   */
  async start(compose: Compose): Promise<void> {
    this.#compose = compose;
    await this.#adopt(true);
    if (this.#bindings.size === 0)
      this.#options.events.emit('coap.no-interface', { wanted: this.#options.interfaces.join(' ') });
    this.#armWatch();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#watch?.cancel();
    const sockets = [...this.#groups.values(), ...[...this.#bindings.values()].map(({ socket }) => socket)];
    for (const { endpoint } of this.#bindings.values()) endpoint.stop();
    this.#bindings.clear();
    this.#groups.clear();
    await Promise.all(
      sockets.map((socket) => {
        const closed = once(socket, 'close');
        socket.close();
        return closed;
      }),
    );
  }

  /** Looks at the interfaces now: binds what is new, lets go of what went. */
  async refresh(): Promise<void> {
    await this.#adopt(false);
  }

  #armWatch(): void {
    this.#watch = this.#options.clock.after(watchEvery, async () => {
      await this.#adopt(false);
      if (!this.#stopped) this.#armWatch();
    });
  }

  async #adopt(strict: boolean): Promise<void> {
    const { interfaces, events, listInterfaces = networkInterfaces } = this.#options;
    const wanted = localAddresses(interfaces, listInterfaces);
    for (const [address, binding] of this.#bindings) {
      if (wanted.some((local) => local.address === address)) continue;
      events.emit('coap.address-gone', { address, interface: binding.interfaceName });
      this.#unbind(binding);
    }
    for (const local of wanted) {
      if (this.#stopped) return;
      if (!this.#bindings.has(local.address)) await this.#tryBind(local, strict);
      if (this.#options.multicast) await this.#tryJoin(local);
    }
  }

  async #tryBind(local: LocalAddress, strict: boolean): Promise<void> {
    const { events } = this.#options;
    try {
      await this.#bind(local);
      events.emit('coap.listening', { address: local.address, port: this.#port });
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      events.emit('coap.bind-failed', { address: local.address, port: this.#port, reason });
      // A fixed port that is taken is a mistake to hear of; a link-local address may be not ready yet.
      if (strict && (cause as NodeJS.ErrnoException).code === 'EADDRINUSE')
        throw new PosternError('configuration', `${local.address} port ${this.#port} is in use`, { cause });
    }
  }

  async #bind(local: LocalAddress): Promise<void> {
    const { clock, entropy, events, limits } = this.#options;
    const socket = createSocket({
      type: `udp${local.family}`,
      recvBufferSize,
      ...literalLookup,
      ipv6Only: local.family === 6,
    });
    await bound(socket, this.#port, local.address);
    this.#port = socket.address().port;
    const handler = this.#compose!({
      address: this.#options.advertise?.address ?? local.address,
      port: this.#options.advertise?.port ?? this.#port,
      endpoint: () => endpoint,
    });
    const endpoint: CoapEndpoint = new CoapEndpoint({
      clock,
      entropy,
      events,
      handler,
      send: (datagram, port, address) => socket.send(datagram, port, address),
      ...(limits && { limits }),
    });
    const binding: Binding = { ...local, socket, endpoint };
    socket.on('message', (datagram, { address, port }) => endpoint.receive(datagram, address, port));
    socket.on('error', (error) => {
      events.emit('coap.socket-error', { address: local.address, reason: error.message });
      this.#unbind(binding);
    });
    this.#bindings.set(local.address, binding);
  }

  #unbind(binding: Binding): void {
    if (!this.#bindings.delete(binding.address)) return;
    binding.endpoint.stop();
    binding.socket.close();
    for (const membership of this.#memberships)
      if (membership.startsWith(`${binding.address} `)) this.#memberships.delete(membership);
  }

  async #tryJoin(local: LocalAddress): Promise<void> {
    const groups = local.family === 4 ? [group4] : groups6;
    for (const group of groups) {
      const membership = `${local.address} ${group}`;
      if (this.#memberships.has(membership) || !this.#bindings.has(local.address)) continue;
      // Only a link-local address names its interface to the kernel; `lo` has none, and is joined by name.
      if (local.family === 6 && !local.address.includes('%') && local.address !== '::1') continue;
      try {
        const socket = await this.#groupSocket(local, group);
        socket.addMembership(group, local.family === 4 ? local.address : `::%${local.interfaceName}`);
        this.#memberships.add(membership);
      } catch (error) {
        // EADDRINUSE here: this interface has joined already, by another of its addresses.
        if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') this.#memberships.add(membership);
        else
          this.#options.events.emit('coap.join-failed', {
            group,
            interface: local.interfaceName,
            reason: String(error),
          });
      }
    }
  }

  /** IPv4 has one socket for the group; IPv6 one per interface, since a link-local group is only an address with it. */
  async #groupSocket(local: LocalAddress, group: string): Promise<Socket> {
    const bindTo = local.family === 4 ? group : `${group}%${local.interfaceName}`;
    const existing = this.#groups.get(bindTo);
    if (existing) return existing;
    const socket = createSocket({ type: `udp${local.family}`, reuseAddr: true, ...literalLookup });
    await bound(socket, this.#port, bindTo);
    socket.on('message', (datagram, { address, port }) =>
      this.towards(address)?.receive(datagram, address, port, true),
    );
    socket.on('error', () => {
      this.#groups.delete(bindTo);
      socket.close();
    });
    this.#groups.set(bindTo, socket);
    return socket;
  }
}

/** Addresses here are always literal; without this, Node defers every send by a tick to look them up. */
const literalLookup: Pick<SocketOptions, 'lookup'> = {
  lookup: (host, _options, callback) => callback(null, host, host.includes(':') ? 6 : 4),
};

function bound(socket: Socket, port: number, address: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const fail = (error: Error) => {
    socket.close();
    reject(error);
  };
  socket.once('error', fail);
  socket.bind({ port, address, exclusive: true }, () => {
    socket.off('error', fail);
    resolve();
  });
  return promise;
}
