import type { Socket } from 'node:dgram';
import { once } from 'node:events';
import { networkInterfaces } from 'node:os';
import { Admission } from '../../base/admission.ts';
import { background, failed, guarded } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { sourceAddressTowards } from '../../base/source-address.ts';
import { CoapEndpoint } from '../../wire/coap/endpoint.ts';
import type { EndpointLimits } from '../../wire/coap/endpoint-limits.ts';
import type { Handler, Remote } from '../../wire/coap/message.ts';
import type { Protection } from '../../wire/coap/protection.ts';
import { type CoapScheme, coapUri } from '../../wire/coap/uri.ts';
import type { CoapTransport } from '../../wire/secure/coap-transport.ts';
import { ArrivalQueue, type Receive } from './arrival-queue.ts';
import {
  addressTowards,
  interfaceKey,
  isLoopback,
  type ListInterfaces,
  type LocalAddress,
  localAddresses,
  type Routing,
} from './interfaces.ts';
import { type ReadKernelNetwork, readKernelNetwork } from './kernel-network.ts';
import { MulticastGroups } from './multicast-groups.ts';
import { boundSocket, type Datagram, reasonOf } from './udp-socket.ts';

/** Milliseconds between two checks of the network interfaces. */
const watchEvery = 5000;

/** The local address of an endpoint, or the advertised address instead; some resources put it into their answers. */
export interface LocalEndpoint {
  readonly address: string;
  readonly port: number;
  /** Local IP address of the socket, with its zone. It is stored with the address of a device that was heard here. */
  readonly bound: string;
  readonly scheme: CoapScheme;
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
  /** The entry that all endpoints share; one with the defaults if absent. */
  readonly admission?: Admission;
  /** What protects the datagrams; plain CoAP if absent. It is stopped with the network. */
  readonly transport?: CoapTransport;
  /** What protects requests and responses; nothing if absent. */
  readonly protection?: Protection | undefined;
  readonly listInterfaces?: ListInterfaces;
  readonly readKernel?: ReadKernelNetwork;
}

/** Makes the request handler of the endpoint at one local address. */
export type Compose = (local: LocalEndpoint) => Handler;

interface Binding extends LocalAddress {
  readonly socket: Socket;
  readonly endpoint: CoapEndpoint;
}

/**
 * The gateway's CoAP endpoints and their UDP sockets. Each local address has its own socket, so that an answer is sent
 * from the address that received the request. Addresses belong to interfaces of the kernel: when an interface is made
 * again, its sockets are too. The interfaces are checked periodically, because they may appear late and their addresses
 * may change.
 */
export class CoapNetwork implements AsyncDisposable {
  readonly #options: CoapNetworkOptions;
  /** By interface and address. */
  readonly #bindings = new Map<string, Binding>();
  readonly #groups: MulticastGroups;
  readonly #admission: Admission;
  readonly #arrivals: ArrivalQueue;
  readonly #changed = new Set<() => void>();
  /** Reasons why addresses could not be bound, so that each is reported once. */
  readonly #failures = new Map<string, string>();
  readonly #routing: Routing = {
    sourceTowards: sourceAddressTowards,
    interfaceOf: (address) => this.#all.find((local) => local.address === address)?.interfaceName,
  };
  /** All addresses of the machine, served or not, at the last check. */
  #all: readonly LocalAddress[] = [];
  #compose: Compose | undefined;
  #port: number;
  #watch: Timer | undefined;
  #checking: Promise<void> = Promise.resolve();
  /** The last check of the watch failed. */
  #isWatchBroken = false;
  #stopped = false;

  constructor(options: CoapNetworkOptions) {
    this.#options = options;
    this.#port = options.port;
    this.#arrivals = new ArrivalQueue(options.clock);
    this.#admission = options.admission ?? new Admission({ clock: options.clock, events: options.events });
    this.#groups = new MulticastGroups({
      events: options.events,
      received: (datagram, interfaceName) => this.#receiveByGroup(datagram, interfaceName),
    });
  }

  /** The UDP port; until the first address is bound, the configured one. */
  get port(): number {
    return this.#port;
  }

  /** Local addresses that are bound now. */
  get addresses(): readonly LocalAddress[] {
    return [...this.#bindings.values()];
  }

  /**
   * Whether no address is bound because this machine has none to serve: a cable is pulled out, or nothing answers DHCP. False
   * when addresses are there and cannot be bound.
   */
  get isOffline(): boolean {
    return this.#bindings.size === 0 && this.#failures.size === 0 && !this.#isWatchBroken;
  }

  get endpoints(): CoapEndpoint[] {
    return [...this.#bindings.values()].map(({ endpoint }) => endpoint);
  }

  /**
   * The endpoint to use for a remote address: that of the local address `heardOn` at which the remote one was heard,
   * else one on the same link, else the one that the kernel's routing chooses. Undefined when nothing suits.
   */
  towards(remote: string, heardOn?: string): CoapEndpoint | undefined {
    return this.#bindingTowards(remote, heardOn)?.endpoint;
  }

  /** The local address of the endpoint that `towards` gives. */
  addressTowards(remote: string, heardOn?: string): string | undefined {
    return this.#bindingTowards(remote, heardOn)?.address;
  }

  /**
   * URI of a path on this gateway: with the advertised address if there is one, else with the local address that suits
   * `remote`, as in `towards`. Without `remote`, with the first local address that other machines can reach.
   * @throws {PosternError} `unavailable` when no suitable address is bound
   */
  uriTowards(remote: string | undefined, path: string, heardOn?: string): string {
    const { advertise, transport } = this.#options;
    const scheme = transport ? 'coaps' : 'coap';
    if (advertise) return coapUri(advertise.address, advertise.port, path, scheme);
    const bindings = [...this.#bindings.values()];
    const local =
      remote === undefined
        ? (bindings.find(({ address }) => !isLoopback(address)) ?? bindings[0])
        : this.#bindingTowards(remote, heardOn);
    if (!local) throw new PosternError('unavailable', 'the gateway has no address');
    return coapUri(local.address, this.#port, path, scheme);
  }

  /** Calls `listener` after each change of the bound addresses. */
  onChange(listener: () => void): void {
    this.#changed.add(listener);
  }

  /**
   * Binds all present addresses, and from now on those that appear.
   * @throws {PosternError} `configuration` when the port is in use
   */
  async start(compose: Compose): Promise<void> {
    this.#compose = compose;
    await this.#check(true);
    if (this.#bindings.size === 0)
      this.#options.events.emit('coap.no-interface', { wanted: this.#options.interfaces.join(' ') });
    this.#armWatch();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    this.#watch?.cancel();
    await this.#checking.catch(() => {});
    const sockets = [...this.#bindings.values()].map(({ socket }) => socket);
    for (const { endpoint } of this.#bindings.values()) endpoint.stop();
    this.#options.transport?.stop();
    this.#bindings.clear();
    this.#arrivals.stop();
    this.#groups.close();
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
    await this.#check(false);
  }

  #armWatch(): void {
    if (this.#stopped) return;
    this.#watch = this.#options.clock.after(watchEvery, () => {
      void this.#watchOnce().finally(() => this.#armWatch());
    });
  }

  /** One check of the watch. Never rejects: the next check comes in any case. */
  async #watchOnce(): Promise<void> {
    let isDone = false;
    await background(this.#options.events, 'interfaces', async () => {
      await this.#check(false);
      isDone = true;
    });
    this.#isWatchBroken = !isDone;
  }

  /** One check at a time: two at once would bind the same address twice. */
  #check(strict: boolean): Promise<void> {
    const next = this.#checking.catch(() => {}).then(() => this.#adopt(strict));
    this.#checking = next;
    return next;
  }

  async #adopt(strict: boolean): Promise<void> {
    if (this.#stopped) return;
    const { interfaces, events, multicast } = this.#options;
    const { listInterfaces = networkInterfaces, readKernel = readKernelNetwork } = this.#options;
    const kernel = readKernel();
    this.#all = localAddresses([], listInterfaces, { ...kernel, passing: new Set() });
    const wanted = new Map(
      localAddresses(interfaces, listInterfaces, kernel).map((local) => [keyOf(local), local]),
    );
    const before = [...this.#bindings.keys()].join();
    for (const [key, binding] of this.#bindings) {
      if (wanted.has(key)) continue;
      this.#release(binding);
      events.emit('coap.address-gone', { address: binding.address, interface: binding.interfaceName });
    }
    for (const key of this.#failures.keys()) if (!wanted.has(key)) this.#failures.delete(key);
    for (const [key, local] of wanted) {
      if (this.#stopped) return;
      if (!this.#bindings.has(key)) await this.#tryBind(local, strict);
    }
    if (this.#stopped) return;
    if (multicast) await this.#groups.update([...this.#bindings.values()], this.#port, kernel);
    if ([...this.#bindings.keys()].join() !== before) for (const listener of this.#changed) listener();
  }

  async #tryBind(local: LocalAddress, strict: boolean): Promise<void> {
    const { events, transport } = this.#options;
    try {
      await this.#bind(local);
      this.#failures.delete(keyOf(local));
      events.emit('coap.listening', { address: local.address, port: this.#port });
    } catch (cause) {
      const reason = reasonOf(cause);
      if (this.#failures.get(keyOf(local)) !== reason)
        events.emit('coap.bind-failed', { address: local.address, port: this.#port, reason });
      this.#failures.set(keyOf(local), reason);
      // A port in use is an error of the configuration. Other errors may pass: a link-local address may not be ready
      // yet.
      if (strict && (cause as NodeJS.ErrnoException).code === 'EADDRINUSE')
        throw new PosternError(
          'configuration',
          `${transport ? 'coaps' : 'coap'}.port: ${local.address} port ${this.#port} is in use; stop the other program, or choose another port`,
          { cause },
        );
    }
  }

  async #bind(local: LocalAddress): Promise<void> {
    const { clock, entropy, events, limits, advertise, transport, protection } = this.#options;
    const { family, address } = local;
    const socket = await boundSocket({ family, address, port: this.#port });
    this.#port = socket.address().port;
    try {
      const handler = this.#compose!({
        address: advertise?.address ?? address,
        port: advertise?.port ?? this.#port,
        bound: address,
        scheme: transport ? 'coaps' : 'coap',
        endpoint: () => endpoint,
      });
      const send = (datagram: Buffer, port: number, to: string) => {
        try {
          socket.send(datagram, port, to);
        } catch (thrown) {
          // The system refuses some datagrams at once, such as one to port 0. To the endpoint such a datagram is lost.
          failed(events, 'coap-datagram', thrown);
        }
      };
      const endpoint: CoapEndpoint = new CoapEndpoint({
        clock,
        entropy,
        events,
        handler,
        send: transport ? (datagram, _port, _to, key) => transport.send(datagram, key) : send,
        ...(transport && { remoteOf: (from, fromPort) => transport.remoteOf(from, fromPort) }),
        admission: this.#admission,
        protection,
        ...(limits && { limits }),
      });
      const binding: Binding = { ...local, socket, endpoint };
      const receive: Receive = guarded(events, 'coap-datagram', (octets: Buffer, remote: Remote) => {
        // What has waited while its association ended is not handled any more.
        if (!transport || transport.has(remote.key)) endpoint.take(octets, remote);
      });
      const received = (octets: Buffer, remote: Remote) => {
        // What is not admitted must not wait in front of what is.
        if (endpoint.admits(octets, remote)) this.#arrivals.take(receive, octets, remote);
      };
      transport?.open(address, { send, received, endpoint });
      socket.on(
        'message',
        guarded(events, 'coap-datagram', (octets: Buffer, from: { address: string; port: number }) => {
          if (transport) transport.receive(octets, from.address, from.port, address);
          else received(octets, endpoint.remoteOf(from.address, from.port));
        }),
      );
      socket.on('error', (error) => {
        events.emit('coap.socket-error', { address, reason: error.message });
        this.#release(binding);
      });
      this.#bindings.set(keyOf(local), binding);
    } catch (thrown) {
      socket.close();
      throw thrown;
    }
  }

  #release(binding: Binding): void {
    if (this.#bindings.get(keyOf(binding)) !== binding) return;
    this.#bindings.delete(keyOf(binding));
    this.#options.transport?.shut(binding.address);
    binding.endpoint.stop();
    binding.socket.close();
  }

  #bindingTowards(remote: string, heardOn?: string): Binding | undefined {
    const bindings = [...this.#bindings.values()];
    const heard = bindings.find(({ address }) => address === heardOn);
    const isUsable = heard && (isLoopback(remote) || !isLoopback(heard.address));
    return isUsable ? heard : addressTowards(bindings, remote, this.#routing);
  }

  /** A datagram of a group is answered from an address of its interface, where the interface is known. */
  #receiveByGroup({ octets, address, port }: Datagram, interfaceName: string | undefined): void {
    const bindings = [...this.#bindings.values()];
    const there = bindings.filter((local) => local.interfaceName === interfaceName);
    const local =
      addressTowards(there, address, this.#routing) ?? addressTowards(bindings, address, this.#routing);
    local?.endpoint.receive(octets, address, port, true);
  }
}

const keyOf = (local: LocalAddress): string => `${interfaceKey(local)} ${local.address}`;
