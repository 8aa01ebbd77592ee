import { createSocket, type RemoteInfo, type Socket, type SocketOptions } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { background, failed, guarded } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { CoapEndpoint, type EndpointLimits } from '../../wire/coap/endpoint.ts';
import type { Handler } from '../../wire/coap/message.ts';
import { coapUri } from '../../wire/coap/uri.ts';
import { addressTowards, type ListInterfaces, type LocalAddress, localAddresses } from './interfaces.ts';

/**
 * "All CoAP Nodes" multicast groups (RFC 7252 section 12.8, unchanged by RFC 9176): IPv4, IPv6 link-local, site-local.
 */
const group4 = '224.0.1.187';
const groups6 = ['ff02::fd', 'ff05::fd'];

/** Receive buffer of a socket in bytes, for bursts of datagrams. The kernel's own limit may reduce it. */
const recvBufferSize = 4 * 1024 * 1024;

/** Milliseconds between two checks of the network interfaces. */
const watchEvery = 5000;

/** The local address of an endpoint, or the advertised address instead; some resources put it into their answers. */
export interface LocalEndpoint {
  readonly address: string;
  readonly port: number;
  /** Usable from the first request on, but not yet while the handler is being made. */
  readonly endpoint: () => CoapEndpoint;
}

export interface CoapNetworkOptions {
  /** UDP port, the same for all addresses; 0 takes a free one. */
  readonly port: number;
  /** Names of the interfaces to serve; empty for all. An interface may appear later. */
  readonly interfaces: readonly string[];
  /** Whether to join the multicast groups for discovery. */
  readonly multicast: boolean;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Address and port at which devices reach this gateway, when they differ from the local ones (port forwarding). */
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
 * The gateway's CoAP endpoints and their UDP sockets. Each local address has its own socket, so that an answer is sent
 * from the address that received the request. Each multicast group has its own socket, because a socket does not show
 * whether a datagram was sent to a group. The interfaces are checked periodically, because they may appear late and
 * their addresses may change.
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

  /** The UDP port; until the first address is bound, the configured one. */
  get port(): number {
    return this.#port;
  }

  /** Local addresses that are bound now. */
  get addresses(): readonly LocalAddress[] {
    return [...this.#bindings.values()];
  }

  get endpoints(): CoapEndpoint[] {
    return [...this.#bindings.values()].map(({ endpoint }) => endpoint);
  }

  /** The endpoint to use for a remote address; undefined when no local address of its family is bound. */
  towards(remote: string): CoapEndpoint | undefined {
    return addressTowards([...this.#bindings.values()], remote)?.endpoint;
  }

  /**
   * URI of a path on this gateway: with the advertised address if there is one, else with the local address that suits
   * `remote`. Without `remote`, with the first local address.
   * @throws {PosternError} `unavailable` when no suitable address is bound
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
   * Binds all present addresses, and from now on those that appear.
   * @throws {PosternError} `configuration` when the port is in use
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

  /** Checks the interfaces now: binds new addresses and releases those that are gone. */
  async refresh(): Promise<void> {
    await this.#adopt(false);
  }

  #armWatch(): void {
    const { clock, events } = this.#options;
    this.#watch = clock.after(watchEvery, async () => {
      await background(events, 'interfaces', () => this.#adopt(false));
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
      // A port in use is an error of the configuration. Other errors may pass: a link-local address may not be ready
      // yet.
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
      send: (datagram, port, address) => {
        try {
          socket.send(datagram, port, address);
        } catch (thrown) {
          // The system refuses some datagrams at once, such as one to port 0. To the endpoint such a datagram is lost.
          failed(events, 'coap-datagram', thrown);
        }
      },
      ...(limits && { limits }),
    });
    const binding: Binding = { ...local, socket, endpoint };
    socket.on(
      'message',
      guarded(events, 'coap-datagram', (datagram: Buffer, { address, port }: RemoteInfo) =>
        endpoint.receive(datagram, address, port),
      ),
    );
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
      // An IPv6 group is joined per interface, so one address of each is enough: the link-local one, or `::1` on `lo`.
      if (local.family === 6 && !local.address.includes('%') && local.address !== '::1') continue;
      try {
        const socket = await this.#groupSocket(local, group);
        socket.addMembership(group, local.family === 4 ? local.address : `::%${local.interfaceName}`);
        this.#memberships.add(membership);
      } catch (error) {
        // EADDRINUSE means that another address of this interface has joined already.
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

  /**
   * The socket of a multicast group. IPv4 has one for all interfaces. IPv6 has one per interface, because a link-local
   * group address needs the interface as its zone.
   */
  async #groupSocket(local: LocalAddress, group: string): Promise<Socket> {
    const bindTo = local.family === 4 ? group : `${group}%${local.interfaceName}`;
    const existing = this.#groups.get(bindTo);
    if (existing) return existing;
    const socket = createSocket({ type: `udp${local.family}`, reuseAddr: true, ...literalLookup });
    await bound(socket, this.#port, bindTo);
    const { events } = this.#options;
    socket.on(
      'message',
      guarded(events, 'coap-datagram', (datagram: Buffer, { address, port }: RemoteInfo) =>
        this.towards(address)?.receive(datagram, address, port, true),
      ),
    );
    socket.on('error', (error) => {
      failed(events, 'interfaces', error);
      this.#groups.delete(bindTo);
      socket.close();
    });
    this.#groups.set(bindTo, socket);
    return socket;
  }
}

/** All addresses here are literals. Without this lookup function, Node delays each send by one tick to resolve them. */
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
