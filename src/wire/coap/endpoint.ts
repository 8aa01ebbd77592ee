import { type BackgroundWork, failed } from '../../base/background.ts';
import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { CoapMessage } from './codec.ts';
import { decode, encode, encodeEmpty, Malformed, noBytes, Type } from './codec.ts';
import { Code, codeFromText, isRequestCode, isResponseCode } from './codes.ts';
import type { DeduplicationLimits } from './deduplication.ts';
import { deduplicationDefaults, RecentExchanges } from './deduplication.ts';
import type { Handler, Remote, Reply } from './message.ts';
import { amplification, CoapRequest, isError, refusal } from './message.ts';
import { MessageIds } from './message-ids.ts';
import { Option, uint, unacceptableOption } from './options.ts';
import { type Exchange, Peer, remoteKey, type Transmission } from './peer.ts';
import { type OutgoingRequest, PendingRequests } from './pending-requests.ts';
import type { TransmissionParameters } from './transmission.ts';
import { Transmitter, transmissionDefaults } from './transmission.ts';

/** Bounds and times of one endpoint. */
export interface EndpointLimits {
  readonly deduplication: DeduplicationLimits;
  readonly transmission: TransmissionParameters;
  /** Most requests that are being handled at one time. Further requests get 5.03 with a Max-Age. */
  readonly concurrentRequests: number;
  /** Most requests of this endpoint that wait for a response at one time. */
  readonly pendingRequests: number;
  /** Milliseconds until a slow response is acknowledged first and sent separately (RFC 7252 section 5.2.2). */
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
  pendingRequests: 1024,
  piggybackWithin: 250,
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
}

/**
 * The outcome of a notification, on which an observe relation depends (RFC 7641 section 4.5). `sent` is the only
 * outcome of a non-confirmable one. `lost` means that no acknowledgement came, or that it could not be sent at all.
 */
export type Delivery = 'sent' | 'acknowledged' | 'reset' | 'lost';

/** Max-Age of the 5.03 response at overload: seconds after which the peer may try again. */
const overloadMaxAge = 5;

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
  readonly #entropy: Entropy;
  readonly #events: Events;
  readonly #handler: Handler;
  readonly #sendDatagram: EndpointParts['send'];
  readonly #peers = new Map<string, Peer>();
  readonly #recent: RecentExchanges;
  readonly #transmitter: Transmitter;
  readonly #requests: PendingRequests;
  readonly #proven: BoundedMap<string, true>;
  readonly #messageIds: MessageIds;
  readonly #leisurely = new Set<Timer>();
  #working = 0;
  #sweep: Timer | undefined;
  #stopped = false;

  constructor(parts: EndpointParts) {
    this.#limits = { ...endpointDefaults, ...parts.limits };
    this.#clock = parts.clock;
    this.#entropy = parts.entropy;
    this.#messageIds = new MessageIds(parts.entropy);
    this.#events = parts.events;
    this.#handler = parts.handler;
    this.#sendDatagram = parts.send;
    this.#proven = new BoundedMap(this.#limits.provenPeers);
    const forgetIdle = (peer: Peer) => this.#forgetIdle(peer);
    this.#recent = new RecentExchanges(this.#limits.deduplication, forgetIdle);
    this.#transmitter = new Transmitter(
      parts.clock,
      parts.entropy,
      this.#limits.transmission,
      (datagram, peer) => this.#send(datagram, peer),
      forgetIdle,
    );
    this.#requests = new PendingRequests({
      limit: this.#limits.pendingRequests,
      clock: parts.clock,
      entropy: parts.entropy,
      transmitter: this.#transmitter,
      forgetIdle,
    });
  }

  /** Whether `stop` was called. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** How much state is kept, for metrics and for the tests of the bounds. */
  get footprint() {
    return {
      peers: this.#peers.size,
      exchanges: this.#recent.entries,
      replyBytes: this.#recent.bytes,
      pendingRequests: this.#requests.size,
      working: this.#working,
    };
  }

  /** Records that the remote receives at the address it claims. Responses to it may then be of any size. */
  vouch(remote: Remote): void {
    this.#proven.set(remote.key, true);
  }

  isProven(remote: Remote): boolean {
    return this.#proven.has(remote.key);
  }

  /**
   * Takes in one datagram. `multicast` says that it was sent to a multicast address. Ignored after `stop`, and from port
   * 0, to which nothing can be sent.
   */
  receive(datagram: Buffer, address: string, port: number, multicast = false): void {
    if (this.#stopped || port === 0) return;
    const message = decode(datagram);
    if (message instanceof Malformed) {
      this.#refuseMalformed(message, address, port, multicast);
      return;
    }
    const key = remoteKey(address, port);
    const known = this.#peers.get(key);
    if (message.type === Type.ACK || message.type === Type.RST) {
      if (known) this.#receiveAnswer(known, message);
      else if (message.type === Type.RST) this.#reset({ address, port, key }, message.messageId);
      return;
    }
    if (isRequestCode(message.code)) {
      this.#receiveRequest(known ?? this.#newPeer(address, port, key), message, datagram.length, multicast);
      return;
    }
    if (isResponseCode(message.code) && known && !multicast) {
      this.#receiveSeparateResponse(known, message);
      return;
    }
    // An empty CON is a ping (section 4.3). Any other message here is a response that nothing waits for.
    if (message.type === Type.CON && !multicast)
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
   * Sends a response as a message of its own: a notification (RFC 7641) or a separate response (RFC 7252 section
   * 5.2.2). Returns its message ID and a promise for the outcome, which never rejects. After `stop` nothing is sent, and the
   * outcome is `lost`.
   */
  notify(
    remote: Remote,
    token: Uint8Array,
    response: Reply,
    confirmable: boolean,
  ): { messageId: number; fate: Promise<Delivery> } {
    const peer = this.#peerOf(remote.address, remote.port);
    const messageId = peer.takeMessageId();
    const type = confirmable ? Type.CON : Type.NON;
    const datagram = encode({ ...response, type, messageId, token });
    if (!confirmable) {
      this.#send(datagram, peer);
      this.#forgetIdle(peer);
      return { messageId, fate: Promise.resolve('sent') };
    }
    const { promise: fate, resolve } = Promise.withResolvers<Delivery>();
    const settled: Transmission['settled'] = (outcome) =>
      resolve(outcome instanceof PosternError ? 'lost' : outcome);
    this.#transmitter.submit(peer, { messageId, datagram, settled });
    return { messageId, fate };
  }

  /**
   * Resolves with whether an endpoint answers at this address within `timeout` milliseconds. Sends an empty confirmable
   * message, which every endpoint answers by a Reset (section 4.3).
   */
  ping(address: string, port: number, timeout: number): Promise<boolean> {
    const peer = this.#peerOf(address, port);
    const messageId = peer.takeMessageId();
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const transmission: Transmission = {
      messageId,
      datagram: encodeEmpty(Type.CON, messageId),
      settled: (outcome) => {
        timer.cancel();
        resolve(!(outcome instanceof PosternError));
      },
    };
    const timer = this.#clock.after(timeout, () => {
      this.#transmitter.cancel(peer, transmission);
      resolve(false);
    });
    this.#transmitter.submit(peer, transmission);
    return promise;
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
    for (const timer of this.#leisurely) timer.cancel();
    this.#leisurely.clear();
    this.#transmitter.stop();
    this.#requests.stop();
    this.#recent.clear();
    this.#peers.clear();
  }

  #newPeer(address: string, port: number, key: string): Peer {
    const peer = new Peer({ address, port, key }, this.#messageIds);
    this.#peers.set(key, peer);
    return peer;
  }

  #peerOf(address: string, port: number): Peer {
    const key = remoteKey(address, port);
    return this.#peers.get(key) ?? this.#newPeer(address, port, key);
  }

  #forgetIdle(peer: Peer): void {
    if (peer.idle) this.#peers.delete(peer.key);
  }

  /** Sends nothing after `stop`: the socket may be closed, but work that began before may still end. */
  #send(datagram: Buffer, peer: Peer): void {
    if (!this.#stopped) this.#sendDatagram(datagram, peer.port, peer.address);
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
    const expected = this.#transmitter.settle(peer, message.messageId, outcome);
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
      if (wanted)
        this.#recent.complete(this.#recent.open(peer, message.messageId, this.#clock.now()), answer);
      this.#armSweep();
      this.#send(answer, peer);
    }
    if (wanted) this.#requests.answered(peer, message);
  }

  #receiveRequest(peer: Peer, message: CoapMessage, size: number, multicast: boolean): void {
    const repeated = peer.exchanges.get(message.messageId);
    const now = this.#clock.now();
    if (repeated && repeated.expires > now) {
      if (repeated.reply && message.type === Type.CON) this.#send(repeated.reply, peer);
      return;
    }
    // A multicast request must not be confirmable (section 8.1).
    if (multicast && message.type === Type.CON) {
      this.#forgetIdle(peer);
      return;
    }
    const exchange = this.#recent.open(peer, message.messageId, now);
    this.#armSweep();
    const critical = unacceptableOption(message.options);
    if (critical !== undefined) {
      this.#events.emit('coap.bad-option', { option: critical, peer: peer.address });
      // Section 5.4.1: a confirmable request gets 4.02, a non-confirmable one is dropped.
      if (message.type === Type.CON)
        this.#respond(exchange, message, refusal(Code.BadOption, `option ${critical}`));
      return;
    }
    const allowance = size * amplification;
    this.#run(exchange, message, new CoapRequest(peer, message, multicast, message.payload, allowance, this));
  }

  #run(exchange: Exchange, message: CoapMessage, request: CoapRequest): void {
    if (this.#working >= this.#limits.concurrentRequests) {
      this.#events.emit('coap.overload', { working: this.#working });
      this.#respond(exchange, message, {
        code: Code.ServiceUnavailable,
        options: [uint(Option.MaxAge, overloadMaxAge)],
        payload: noBytes,
      });
      return;
    }
    let outcome: ReturnType<Handler>;
    try {
      outcome = this.#handler(request);
    } catch (thrown) {
      outcome = this.#failure(thrown);
    }
    if (!(outcome instanceof Promise)) {
      this.#answer(exchange, message, request, outcome, false);
      return;
    }
    this.#working++;
    let acknowledged = false;
    const timer =
      message.type === Type.CON
        ? this.#clock.after(this.#limits.piggybackWithin, () => {
            if (this.#stopped) return;
            acknowledged = true;
            this.#reply(exchange, encodeEmpty(Type.ACK, message.messageId));
          })
        : undefined;
    outcome
      .catch((thrown) => this.#failure(thrown))
      .then((response) => {
        this.#working--;
        timer?.cancel();
        if (!this.#stopped) this.#answer(exchange, message, request, response, acknowledged);
      })
      .catch((thrown) => this.failed('coap-response', thrown));
  }

  #failure(thrown: unknown): Reply {
    const error = asPosternError(thrown);
    if (error.code === 'internal')
      this.#events.emit('coap.handler-failed', { message: error.message, stack: error.stack });
    const { retryAfter } = error;
    return refusal(
      codeFromText(error.coapCode),
      error.code === 'internal' ? '' : error.message,
      retryAfter === undefined ? {} : { maxAge: retryAfter },
    );
  }

  #answer(
    exchange: Exchange,
    message: CoapMessage,
    request: CoapRequest,
    response: Reply | undefined,
    acknowledged: boolean,
  ): void {
    if (request.multicast) {
      if (response && !isError(response)) this.#answerAtLeisure(exchange, message, response);
      return;
    }
    // Only a multicast request may go without a response.
    const due = response ?? refusal(Code.InternalServerError, '');
    if (acknowledged) this.notify(exchange.peer, message.token, due, true);
    else this.#respond(exchange, message, due);
  }

  #answerAtLeisure(exchange: Exchange, message: CoapMessage, response: Reply): void {
    if (this.#leisurely.size >= this.#limits.concurrentRequests) return;
    const timer = this.#clock.after(this.#entropy.uniform() * this.#limits.leisure, () => {
      this.#leisurely.delete(timer);
      this.#respond(exchange, message, response);
    });
    this.#leisurely.add(timer);
  }

  /** Responds to a CON on its ACK, and to a NON by a NON (section 5.2). */
  #respond(exchange: Exchange, message: CoapMessage, { code, options, payload }: Reply): void {
    const confirmed = message.type === Type.CON;
    this.#reply(
      exchange,
      encode({
        type: confirmed ? Type.ACK : Type.NON,
        code,
        messageId: confirmed ? message.messageId : exchange.peer.takeMessageId(),
        token: message.token,
        options,
        payload,
      }),
    );
  }

  #reply(exchange: Exchange, datagram: Buffer): void {
    this.#recent.complete(exchange, datagram);
    this.#send(datagram, exchange.peer);
  }

  /** Sets one timer, for the oldest exchange. It frees memory when no further messages arrive. */
  #armSweep(): void {
    if (this.#sweep) return;
    const next = this.#recent.nextExpiry;
    if (next === undefined) return;
    this.#sweep = this.#clock.after(next - this.#clock.now() + sweepSlack, () => {
      this.#sweep = undefined;
      this.#recent.expire(this.#clock.now());
      this.#armSweep();
    });
  }
}

/** Milliseconds that the sweep comes after the oldest expiry, so that one sweep drops many exchanges. */
const sweepSlack = 1000;
