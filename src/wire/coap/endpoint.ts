import { Admission, Standing } from '../../base/admission.ts';
import { type BackgroundWork, failed } from '../../base/background.ts';
import type { Clock, Monotonic } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { CoapMessage } from './codec.ts';
import { type EndpointLimits, endpointDefaults } from './endpoint-limits.ts';
import { Entry } from './entry.ts';
import { Exchanges } from './exchanges.ts';
import { Exit, type Notification } from './exit.ts';
import type { Handler, Remote, Reply } from './message.ts';
import { MessageIds } from './message-ids.ts';
import { Observations } from './observations.ts';
import type { Peer } from './peer.ts';
import { Peers } from './peers.ts';
import { type OutgoingRequest, PendingRequests } from './pending-requests.ts';
import { Pings } from './pings.ts';
import type { Protection } from './protection.ts';
import { Reception } from './reception.ts';
import { Serving } from './serving.ts';
import { Transmitter } from './transmission.ts';

/** What an endpoint needs from its surroundings. */
export interface EndpointParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Gets each new request. An error that it throws becomes a response with the error's CoAP code. */
  readonly handler: Handler;
  /** Sends one datagram. `key` is that of the remote. Only the endpoint's `Exit` calls it. */
  readonly send: (datagram: Buffer, port: number, address: string, key: string) => void;
  /** Who is at an address and port, for a transport that knows its peers by more than that. */
  readonly remoteOf?: (address: string, port: number) => Remote;
  /** Replaces single values of `endpointDefaults`. */
  readonly limits?: Partial<EndpointLimits>;
  /** The entry that all endpoints of a gateway share; one of its own if absent. */
  readonly admission?: Admission;
  /** What protects requests and responses; nothing if absent. */
  readonly protection?: Protection | undefined;
}

/**
 * One CoAP endpoint (RFC 7252) without a socket. Datagrams come in by `receive` and go out by `EndpointParts.send`. No
 * datagram makes it throw. All state that it keeps about peers is bounded by `EndpointLimits`.
 */
export class CoapEndpoint {
  /**
   * Called for each Reset that belongs to no confirmable message on the wire. It may reject an earlier notification,
   * which ends the observe relation.
   */
  readonly resetListeners = new Set<(remote: Remote, messageId: number) => void>();
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #entry: Entry;
  readonly #peers: Peers;
  readonly #exchanges: Exchanges;
  readonly #exit: Exit;
  readonly #transmitter: Transmitter;
  readonly #pings: Pings;
  readonly #serving: Serving;
  readonly #requests: PendingRequests;
  readonly #observations: Observations;
  readonly #reception: Reception;
  readonly #protection: Protection | undefined;
  #stopped = false;

  constructor(parts: EndpointParts) {
    const { clock, entropy, events, protection } = parts;
    const limits = { ...endpointDefaults, ...parts.limits };
    const { transmission, pendingRequests: limit } = limits;
    const messageIds = new MessageIds(entropy);
    const forgetIdle = (peer: Peer) => this.#peers.forgetIdle(peer);
    const ask = (datagram: Buffer, peer: Peer) => this.#exit.ask(datagram, peer);
    const handler = protection
      ? protection.around(parts.handler, (remote, identity) => {
          const { address, port, key } = remote;
          if (!this.isProven(remote)) this.vouch({ address, port, key, identity }, identity);
        })
      : parts.handler;
    const isProtected = protection !== undefined;
    this.#protection = protection;
    this.#clock = clock;
    this.#events = events;
    this.#entry = new Entry(parts.admission ?? new Admission({ clock, events }), limits.provenPeers);
    this.#peers = new Peers(this.#entry, messageIds, parts.remoteOf);
    this.#exchanges = new Exchanges({ clock, entropy, limits: limits.deduplication, forgetIdle });
    const transmitter = new Transmitter(clock, entropy, transmission, ask, forgetIdle);
    this.#transmitter = transmitter;
    this.#pings = new Pings({ clock, send: ask, repeatAfter: transmission.ackTimeout, limit, forgetIdle });
    this.#exit = new Exit({
      clock,
      entropy,
      transmitter,
      send: parts.send,
      separateResponses: limits.concurrentRequests,
    });
    this.#serving = new Serving({ clock, entropy, events, handler, limits, exit: this.#exit, messageIds });
    const observations = new Observations(limits.observations);
    this.#observations = observations;
    this.#requests = new PendingRequests({
      limit,
      clock,
      entropy,
      transmitter,
      isProtected,
      observations,
      forgetIdle,
    });
    this.#reception = new Reception({
      clock,
      events,
      entry: this.#entry,
      exit: this.#exit,
      peers: this.#peers,
      exchanges: this.#exchanges,
      serving: this.#serving,
      transmitter,
      pings: this.#pings,
      requests: this.#requests,
      observations,
      isProtected,
      rejected: (remote, messageId) => {
        for (const listener of this.resetListeners) listener(remote, messageId);
      },
    });
  }

  /** The time by the endpoint's clock. */
  get now(): Monotonic {
    return this.#clock.now();
  }

  /** Who is at this address and port. */
  remoteOf(address: string, port: number): Remote {
    return this.#peers.remoteOf(address, port);
  }

  /** Whether `stop` was called. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** How much state is kept, for metrics and for the tests of the bounds. */
  get footprint() {
    return {
      peers: this.#peers.size,
      exchanges: this.#exchanges.size,
      replyBytes: this.#exchanges.bytes,
      pendingRequests: this.#requests.size,
      observations: this.#observations.size,
      working: this.#serving.working,
      separateResponses: this.#exit.separateResponses,
      multicastResponses: this.#serving.multicastResponses,
      provenPeers: this.#entry.provenPeers,
    };
  }

  /**
   * Records that a device proved itself from this address and port. Responses to it may then be of any size, and its datagrams
   * have a budget of their own.
   * @param party its name; each has a bounded number of places (`placesOfParty`)
   */
  vouch(remote: Remote, party: string = remote.key): void {
    this.#entry.vouch(remote, party);
    if (remote.identity === undefined) this.#protection?.leave(remote, party);
    const peer = this.#peers.get(remote);
    if (peer) peer.standing = Standing.Proven;
  }

  isProven(remote: Remote): boolean {
    return this.#entry.isProven(remote.key);
  }

  standingOf(remote: Remote): Standing {
    return this.#entry.standingOf(remote);
  }

  /**
   * Takes in one datagram. `multicast` says that it was sent to a multicast address. Ignored after `stop`, and from port
   * 0, to which nothing can be sent.
   */
  receive(datagram: Buffer, address: string, port: number, multicast = false): void {
    if (!multicast) {
      const remote = this.#peers.remoteOf(address, port);
      if (this.admits(datagram, remote)) this.take(datagram, remote);
    } else if (!this.#stopped && port !== 0 && this.#entry.admitsMulticast(address))
      this.#reception.takeMulticast(datagram, this.#peers.remoteOf(address, port));
  }

  /** Whether a datagram is looked at. Then it is to be passed to `take`. It may wait in between. */
  admits(datagram: Buffer, remote: Remote): boolean {
    if (this.#stopped || remote.port === 0) return false;
    return this.#entry.admits(datagram, remote, this.#peers.get(remote));
  }

  /** Takes in a datagram that was admitted. */
  take(datagram: Buffer, remote: Remote): void {
    if (!this.#stopped) this.#reception.take(datagram, remote);
  }

  /**
   * Sends a confirmable request. Resolves with its response, whatever the code of the response.
   * @throws {PosternError} `timeout`; `unavailable` when the peer sends a Reset, the signal is aborted, the endpoint
   *   is stopped, or nothing protects what goes to `party`; `full` when too many requests wait; `malformed` when the response has an unacceptable critical option; with a
   *   protection also as `Protection.request`
   */
  async request(address: string, port: number, outgoing: OutgoingRequest): Promise<CoapMessage> {
    const remote = this.#peers.remoteOf(address, port);
    const { party } = outgoing;
    if (party !== undefined && this.#partyAt(remote) !== party)
      throw new PosternError('unavailable', `nothing protects what goes to ${party}`);
    const send = async (message: OutgoingRequest) => {
      if (this.#stopped) throw new PosternError('unavailable', 'the CoAP endpoint stopped');
      return await this.#requests.send(this.#peers.of(remote), message);
    };
    return await (this.#protection?.request(remote, outgoing, send) ?? send(outgoing));
  }

  /** Whether what is sent to this address and port is protected, so that this party alone can read it. */
  protects(address: string, port: number, party: string): boolean {
    return this.#partyAt(this.#peers.remoteOf(address, port)) === party;
  }

  #partyAt(remote: Remote): string | undefined {
    return this.#protection?.partyAt(remote) ?? remote.identity;
  }

  /**
   * Sends a notification (RFC 7641), within what the peer may get. Returns its message ID and a promise for the outcome, which
   * never rejects. After `stop` nothing is sent, and the outcome of a confirmable one is `lost`.
   */
  notify(remote: Remote, token: Uint8Array, response: Reply, confirmable: boolean): Notification {
    const peer = this.#peers.of(remote);
    const notification = this.#exit.notify(peer, token, response, confirmable);
    this.#peers.forgetIdle(peer);
    return notification;
  }

  /**
   * Keeps what is known of a peer, such as how many bytes it may get, until the returned function is called. To be called once
   * by what sends to the peer later.
   */
  retain(remote: Remote): () => void {
    const peer = this.#peers.of(remote);
    peer.retained++;
    return () => {
      peer.retained--;
      this.#peers.forgetIdle(peer);
    };
  }

  /**
   * Resolves with whether an endpoint answers at this address within `timeout` milliseconds. Sends an empty confirmable
   * message, which every endpoint answers by a Reset (section 4.3).
   * @throws {PosternError} `full` and `unavailable`, which say nothing of the peer (`Pings`)
   */
  async ping(address: string, port: number, timeout: number): Promise<boolean> {
    return await this.pingTo(this.#peers.remoteOf(address, port), timeout);
  }

  /** As `ping`, through the association of this remote. Another peer may have one at the same address. */
  async pingTo(remote: Remote, timeout: number): Promise<boolean> {
    if (this.#stopped) throw new PosternError('unavailable', 'the CoAP endpoint stopped');
    return await this.#pings.ping(this.#peers.of(remote), timeout);
  }

  /** Counts an error for which no request waits. */
  failed(work: BackgroundWork, thrown: unknown): void {
    failed(this.#events, work, thrown);
  }

  /**
   * Stops all timers, drops all state and rejects the requests that wait, with `unavailable`. Nothing is sent from then on,
   * also for a request whose handler still works.
   */
  stop(): void {
    this.#stopped = true;
    this.#exit.stop();
    this.#serving.stop();
    this.#transmitter.stop();
    this.#pings.stop();
    this.#requests.stop();
    this.#observations.stop();
    this.#exchanges.stop();
    this.#peers.clear();
  }
}
