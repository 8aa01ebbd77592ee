import { Admission, conversation, Standing, standings } from '../../base/admission.ts';
import { type BackgroundWork, failed } from '../../base/background.ts';
import type { Clock, Monotonic, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { CoapMessage } from './codec.ts';
import { decode, encode, encodeEmpty, Malformed, Type } from './codec.ts';
import { Code, isRequestCode, isResponseCode } from './codes.ts';
import type { DeduplicationLimits } from './deduplication.ts';
import { deduplicationDefaults, RecentExchanges, unprovenShare } from './deduplication.ts';
import { Entry } from './entry.ts';
import { Exit } from './exit.ts';
import type { Handler, Remote, Reply } from './message.ts';
import { amplification, CoapRequest, refusal } from './message.ts';
import { MessageIds } from './message-ids.ts';
import { unacceptableOption } from './options.ts';
import { Peer, remoteKey, type Transmission } from './peer.ts';
import { type OutgoingRequest, PendingRequests } from './pending-requests.ts';
import { Pings } from './pings.ts';
import { Serving } from './serving.ts';
import type { TransmissionParameters } from './transmission.ts';
import { Transmitter, transmissionDefaults } from './transmission.ts';

/** Bounds and times of one endpoint. */
export interface EndpointLimits {
  readonly deduplication: DeduplicationLimits;
  readonly transmission: TransmissionParameters;
  /**
   * Most requests of proven peers that are being handled at one time. Others have shares of their own (`Workload`). Further
   * requests get 5.03 with a Max-Age. The same bounds hold for responses that are sent separately.
   */
  readonly concurrentRequests: number;
  /** Most responses to multicast requests that wait. */
  readonly multicastResponses: number;
  /** Most requests of this endpoint that wait for a response at one time. */
  readonly pendingRequests: number;
  /**
   * Milliseconds until a slow response is acknowledged first and sent separately (RFC 7252 section 5.2.2). A separate response
   * costs three datagrams more, so it is for responses that come from far. A client repeats its request after 2 s at the
   * earliest (section 4.8), which leaves time for the way.
   */
  readonly piggybackWithin: number;
  /** Milliseconds within which a response to a multicast request goes out, at a random time (section 8.2). */
  readonly leisure: number;
  /** Most peers that are remembered as reachable at the address they claim. */
  readonly provenPeers: number;
}

export const endpointDefaults: EndpointLimits = {
  deduplication: deduplicationDefaults,
  transmission: transmissionDefaults,
  concurrentRequests: 1024,
  multicastResponses: 1024,
  pendingRequests: 1024,
  piggybackWithin: 1000,
  leisure: 5000,
  provenPeers: 16_384,
};

/** What an endpoint needs from its surroundings. */
export interface EndpointParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Gets each new request. An error that it throws becomes a response with the error's CoAP code. */
  readonly handler: Handler;
  /** Sends one datagram. */
  readonly send: (datagram: Buffer, port: number, address: string) => void;
  /** Replaces single values of `endpointDefaults`. */
  readonly limits?: Partial<EndpointLimits>;
  /** The entry that all endpoints of a gateway share; one of its own if absent. */
  readonly admission?: Admission;
}

/**
 * The outcome of a notification, on which an observe relation depends (RFC 7641 section 4.5). `sent` is the only
 * outcome of a non-confirmable one. `lost` means that no acknowledgement came, or that it could not be sent at all.
 */
export type Delivery = 'sent' | 'acknowledged' | 'reset' | 'lost';

/** Answers that each transmission of an own message entitles its peer to: an ACK, a response, and repetitions of both. */
const answersPerMessage = 4;
const mostAnswersDue = 64;

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
  readonly #limits: EndpointLimits;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #sendDatagram: EndpointParts['send'];
  readonly #peers = new Map<string, Peer>();
  /** By standing. */
  readonly #recent: readonly RecentExchanges[];
  readonly #entry: Entry;
  readonly #exit: Exit;
  readonly #pings: Pings;
  readonly #transmitter: Transmitter;
  readonly #requests: PendingRequests;
  readonly #messageIds: MessageIds;
  readonly #serving: Serving;
  #sweep: Timer | undefined;
  #lastRemote: Remote = { address: '', port: 0, key: remoteKey('', 0) };
  #stopped = false;

  constructor(parts: EndpointParts) {
    const { clock, events } = parts;
    this.#limits = { ...endpointDefaults, ...parts.limits };
    this.#clock = parts.clock;
    this.#messageIds = new MessageIds(parts.entropy);
    this.#events = parts.events;
    this.#sendDatagram = parts.send;
    this.#entry = new Entry(parts.admission ?? new Admission({ clock, events }), this.#limits.provenPeers);
    const forgetIdle = (peer: Peer) => this.#forgetIdle(peer);
    const ask = (datagram: Buffer, peer: Peer) => {
      peer.answersDue = Math.min(peer.answersDue + answersPerMessage, mostAnswersDue);
      this.#send(datagram, peer);
    };
    const { deduplication } = this.#limits;
    this.#recent = standings.map((standing) => {
      const own = standing === Standing.Proven ? deduplication : unprovenShare(deduplication);
      return new RecentExchanges(own, forgetIdle);
    });
    this.#transmitter = new Transmitter(
      parts.clock,
      parts.entropy,
      this.#limits.transmission,
      ask,
      forgetIdle,
    );
    this.#pings = new Pings({
      clock,
      send: ask,
      repeatAfter: this.#limits.transmission.ackTimeout,
      limit: this.#limits.pendingRequests,
      forgetIdle,
    });
    this.#exit = new Exit({
      ...parts,
      transmitter: this.#transmitter,
      send: (datagram, remote) => this.#send(datagram, remote),
      separateResponses: this.#limits.concurrentRequests,
    });
    this.#serving = new Serving({
      ...parts,
      limits: this.#limits,
      exit: this.#exit,
      messageIds: this.#messageIds,
    });
    this.#requests = new PendingRequests({
      limit: this.#limits.pendingRequests,
      clock: parts.clock,
      entropy: parts.entropy,
      transmitter: this.#transmitter,
      forgetIdle,
    });
  }

  /** The time by the endpoint's clock. */
  get now(): Monotonic {
    return this.#clock.now();
  }

  /** Whether `stop` was called. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** How much state is kept, for metrics and for the tests of the bounds. */
  get footprint() {
    return {
      peers: this.#peers.size,
      exchanges: this.#recent.reduce((sum, { entries }) => sum + entries, 0),
      replyBytes: this.#recent.reduce((sum, { bytes }) => sum + bytes, 0),
      pendingRequests: this.#requests.size,
      working: this.#serving.working,
      separateResponses: this.#exit.separateResponses,
      multicastResponses: this.#serving.multicastResponses,
    };
  }

  /**
   * Records that a device proved itself from this address and port. Responses to it may then be of any size, and its datagrams
   * have a budget of their own.
   * @param party its name; each has a bounded number of places (`placesOfParty`)
   */
  vouch(remote: Remote, party: string = remote.key): void {
    this.#entry.vouch(remote, party);
    const peer = this.#peers.get(remote.key);
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
    if (this.admits(datagram, address, port, multicast)) this.take(datagram, address, port, multicast);
  }

  /** Whether a datagram is looked at. It is then to be passed to `take`, where it may wait in between. */
  admits(datagram: Buffer, address: string, port: number, multicast = false): boolean {
    if (this.#stopped || port === 0) return false;
    if (multicast) return this.#entry.admitsMulticast(address);
    const key = this.#keyOf(address, port);
    return this.#entry.admits(datagram, key, address, this.#peers.get(key));
  }

  /** Takes in a datagram that was admitted. */
  take(datagram: Buffer, address: string, port: number, multicast = false): void {
    if (this.#stopped) return;
    const key = this.#keyOf(address, port);
    const known = this.#peers.get(key);
    const message = decode(datagram);
    if (message instanceof Malformed) {
      this.#refuseMalformed(message, address, port, multicast);
      return;
    }
    if (multicast) {
      this.#receiveMulticast({ address, port, key }, message, datagram.length);
      return;
    }
    known?.received(datagram.length);
    if (message.type === Type.ACK || message.type === Type.RST) {
      if (known) this.#receiveAnswer(known, message);
      else if (message.type === Type.RST) this.#reset({ address, port, key }, message.messageId);
      return;
    }
    if (isRequestCode(message.code)) {
      this.#receiveRequest(known ?? this.#admitted(address, port, key, datagram.length), message);
      return;
    }
    if (isResponseCode(message.code) && known) {
      this.#receiveSeparateResponse(known, message);
      return;
    }
    // An empty CON is a ping (section 4.3). Any other message here is a response that nothing waits for.
    if (message.type === Type.CON)
      this.#sendDatagram(encodeEmpty(Type.RST, message.messageId), port, address);
  }

  /**
   * Sends a confirmable request. Resolves with its response, whatever the code of the response.
   * @throws {PosternError} `timeout`; `unavailable` when the peer sends a Reset, the signal is aborted or the endpoint
   *   is stopped; `full` when too many requests wait; `malformed` when the response has an unacceptable critical option
   */
  async request(address: string, port: number, outgoing: OutgoingRequest): Promise<CoapMessage> {
    if (this.#stopped) throw new PosternError('unavailable', 'the CoAP endpoint stopped');
    return await this.#requests.send(this.#peerOf(address, port), outgoing);
  }

  /**
   * Sends a notification (RFC 7641). Returns its message ID and a promise for the outcome, which never rejects. After `stop`
   * nothing is sent, and the outcome is `lost`. To a peer that has not proved its address nothing is sent beyond the rule of
   * three either.
   * @param isRepeated whether a confirmable one is sent again until it is acknowledged
   */
  notify(
    remote: Remote,
    token: Uint8Array,
    response: Reply,
    confirmable: boolean,
    isRepeated = true,
  ): { messageId: number; fate: Promise<Delivery> } {
    const peer = this.#peerOf(remote.address, remote.port);
    const messageId = peer.takeMessageId();
    const type = confirmable ? Type.CON : Type.NON;
    const datagram = encode({ ...response, type, messageId, token });
    if (!this.isProven(remote)) {
      if (datagram.length > peer.room) {
        this.#forgetIdle(peer);
        return { messageId, fate: Promise.resolve('lost') };
      }
      peer.answered(datagram.length);
    }
    if (!confirmable) {
      this.#send(datagram, peer);
      this.#forgetIdle(peer);
      return { messageId, fate: Promise.resolve('sent') };
    }
    const { promise: fate, resolve } = Promise.withResolvers<Delivery>();
    const settled: Transmission['settled'] = (outcome) =>
      resolve(outcome instanceof PosternError ? 'lost' : outcome);
    this.#transmitter.submit(peer, {
      messageId,
      datagram,
      settled,
      mayRepeat: () => isRepeated,
    });
    return { messageId, fate };
  }

  /**
   * Resolves with whether an endpoint answers at this address within `timeout` milliseconds. Sends an empty confirmable
   * message, which every endpoint answers by a Reset (section 4.3).
   * @throws {PosternError} `full` and `unavailable`, which say nothing of the peer (`Pings`)
   */
  async ping(address: string, port: number, timeout: number): Promise<boolean> {
    if (this.#stopped) throw new PosternError('unavailable', 'the CoAP endpoint stopped');
    return await this.#pings.ping(this.#peerOf(address, port), timeout);
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
    this.#sweep?.cancel();
    this.#serving.stop();
    this.#transmitter.stop();
    this.#pings.stop();
    this.#requests.stop();
    for (const recent of this.#recent) recent.clear();
    this.#peers.clear();
  }

  #newPeer(address: string, port: number, key: string): Peer {
    const peer = new Peer({ address, port, key }, this.#messageIds);
    this.#peers.set(key, peer);
    return peer;
  }

  /** A new peer, whose first datagram was admitted. */
  #admitted(address: string, port: number, key: string, bytes: number): Peer {
    const peer = this.#newPeer(address, port, key);
    peer.credit = conversation - 1;
    peer.received(bytes);
    return peer;
  }

  /** The key of a remote. A datagram asks for it twice, and a string that is there has its hash already. */
  #keyOf(address: string, port: number): string {
    const last = this.#lastRemote;
    if (last.port === port && last.address === address) return last.key;
    const key = remoteKey(address, port);
    this.#lastRemote = { address, port, key };
    return key;
  }

  #peerOf(address: string, port: number): Peer {
    const key = remoteKey(address, port);
    return this.#peers.get(key) ?? this.#newPeer(address, port, key);
  }

  #forgetIdle(peer: Peer): void {
    if (peer.idle) this.#peers.delete(peer.key);
  }

  /** Sends nothing after `stop`: the socket may be closed, but work that began before may still end. */
  #send(datagram: Buffer, { address, port }: Remote): void {
    if (!this.#stopped) this.#sendDatagram(datagram, port, address);
  }

  #refuseMalformed(
    { reason, type, messageId }: Malformed,
    address: string,
    port: number,
    multicast: boolean,
  ) {
    this.#events.emit('coap.malformed', { reason, peer: address });
    if (type === Type.CON && messageId !== undefined && !multicast)
      this.#sendDatagram(encodeEmpty(Type.RST, messageId), port, address);
  }

  #receiveAnswer(peer: Peer, message: CoapMessage): void {
    const outcome = message.type === Type.ACK ? 'acknowledged' : 'reset';
    const expected =
      this.#transmitter.settle(peer, message.messageId, outcome) ||
      this.#pings.answered(peer, message.messageId);
    if (!expected && outcome === 'reset') this.#reset(peer, message.messageId);
    if (expected && isResponseCode(message.code)) this.#requests.answered(peer, message);
  }

  #reset(remote: Remote, messageId: number): void {
    for (const listener of this.resetListeners) listener(remote, messageId);
  }

  #receiveSeparateResponse(peer: Peer, message: CoapMessage): void {
    const known = message.type === Type.CON ? peer.exchanges.get(message.messageId) : undefined;
    if (known?.reply) {
      this.#send(known.reply, peer);
      return;
    }
    const wanted = this.#requests.awaits(peer, message);
    if (message.type === Type.CON) {
      const answer = encodeEmpty(wanted ? Type.ACK : Type.RST, message.messageId);
      // The exchange is opened before the request is settled: settling the last request would forget an idle peer.
      if (wanted) {
        const exchange = this.#recent[peer.standing]!.open(peer, message.messageId, this.#clock.now());
        exchange.table.complete(exchange, answer);
      }
      this.#armSweep();
      this.#send(answer, peer);
    }
    if (wanted) this.#requests.answered(peer, message);
  }

  #receiveRequest(peer: Peer, message: CoapMessage): void {
    const repeated = peer.exchanges.get(message.messageId);
    const now = this.#clock.now();
    if (repeated && repeated.expires > now) {
      if (repeated.reply && message.type === Type.CON) this.#exit.repeat(peer, repeated.reply);
      return;
    }
    peer.standing = this.#entry.standingOf(peer);
    const exchange = this.#recent[peer.standing]!.open(peer, message.messageId, now);
    this.#armSweep();
    const critical = this.#refusedOption(peer, message);
    if (critical !== undefined) {
      // Section 5.4.1: a confirmable request gets 4.02, a non-confirmable one is dropped.
      if (message.type === Type.CON)
        this.#exit.respond(exchange, message, refusal(Code.BadOption, `option ${critical}`));
      return;
    }
    const request = new CoapRequest(peer, message, false, message.payload, peer);
    if (peer.room !== Number.POSITIVE_INFINITY) {
      const { echo } = request;
      if (echo && this.#exit.isFresh(echo, peer)) peer.isReachable = true;
    }
    this.#serving.serve(exchange, message, request);
  }

  /** Number of a critical option because of which a message is refused. */
  #refusedOption({ address }: Remote, { options }: CoapMessage): number | undefined {
    const critical = unacceptableOption(options);
    if (critical !== undefined) this.#events.emit('coap.bad-option', { option: critical, peer: address });
    return critical;
  }

  #receiveMulticast(remote: Remote, message: CoapMessage, size: number): void {
    if (message.type !== Type.NON || message.code !== Code.GET) return;
    if (this.#refusedOption(remote, message) !== undefined) return;
    this.#serving.multicast(remote, message, this.#entry.standingOf(remote), size * amplification);
  }

  /** Sets one timer, for the oldest exchange. It frees memory when no further messages arrive. */
  #armSweep(): void {
    if (this.#sweep) return;
    const expiries = this.#recent.flatMap(({ nextExpiry }) => nextExpiry ?? []);
    if (expiries.length === 0) return;
    const next = Math.min(...expiries);
    this.#sweep = this.#clock.after(next - this.#clock.now() + sweepSlack, () => {
      this.#sweep = undefined;
      for (const recent of this.#recent) recent.expire(this.#clock.now());
      this.#armSweep();
    });
  }
}

/** Milliseconds that the sweep comes after the oldest expiry, so that one sweep drops many exchanges. */
const sweepSlack = 1000;
