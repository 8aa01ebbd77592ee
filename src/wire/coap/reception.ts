import type { Clock } from '../../base/clock.ts';
import type { Events } from '../../base/events.ts';
import { type CoapMessage, decode, Malformed, Type } from './codec.ts';
import { Code, isRequestCode, isResponseCode } from './codes.ts';
import type { Entry } from './entry.ts';
import type { Exchanges } from './exchanges.ts';
import type { Exit } from './exit.ts';
import { amplification, CoapRequest, type Remote, refusal } from './message.ts';
import type { Observations } from './observations.ts';
import { hasOption, Option, unacceptableOption } from './options.ts';
import type { Peer } from './peer.ts';
import type { Peers } from './peers.ts';
import type { PendingRequests } from './pending-requests.ts';
import type { Pings } from './pings.ts';
import type { Serving } from './serving.ts';
import type { Transmitter } from './transmission.ts';

export interface ReceptionParts {
  readonly clock: Clock;
  readonly events: Events;
  readonly entry: Entry;
  readonly exit: Exit;
  readonly peers: Peers;
  readonly exchanges: Exchanges;
  readonly serving: Serving;
  readonly transmitter: Transmitter;
  readonly pings: Pings;
  readonly requests: PendingRequests;
  readonly observations: Observations;
  /** Whether protected messages are opened. */
  readonly isProtected: boolean;
  /** Gets each Reset that belongs to no confirmable message on the wire. */
  readonly rejected: (remote: Remote, messageId: number) => void;
}

/** Reads the datagrams that were admitted, and passes each message to the part of the endpoint that it is for. */
export class Reception {
  readonly #parts: ReceptionParts;

  constructor(parts: ReceptionParts) {
    this.#parts = parts;
  }

  /** Takes in a datagram that was sent to this endpoint alone. */
  take(datagram: Buffer, remote: Remote): void {
    const { peers, exit, requests } = this.#parts;
    const known = peers.get(remote);
    known?.received(datagram.length);
    known?.follow(remote);
    const message = decode(datagram);
    if (message instanceof Malformed) {
      this.#parts.events.emit('coap.malformed', { reason: message.reason, peer: remote.address });
      if (message.type === Type.CON && message.messageId !== undefined)
        exit.reset(known ?? remote, message.messageId);
    } else if (known && isResponseCode(message.code) && requests.isForged(known, message)) {
      // It does not acknowledge either: the true response may still come, and may have been lost.
    } else if (message.type === Type.ACK || message.type === Type.RST) {
      if (known) this.#takeAnswer(known, message);
      else if (message.type === Type.RST) this.#parts.rejected(remote, message.messageId);
    } else if (isRequestCode(message.code))
      this.#takeRequest(known ?? peers.admitted(remote, datagram.length), message);
    else if (isResponseCode(message.code)) this.#takeResponse(remote, known, message, datagram.length);
    // An empty CON is a ping (section 4.3).
    else if (message.type === Type.CON) exit.reset(known ?? remote, message.messageId);
  }

  /** Takes in a datagram that was sent to a group. Only a NON GET is looked at (RFC 7252 section 8.1). */
  takeMulticast(datagram: Buffer, remote: Remote): void {
    const { entry, serving, events } = this.#parts;
    const message = decode(datagram);
    if (message instanceof Malformed) {
      events.emit('coap.malformed', { reason: message.reason, peer: remote.address });
      return;
    }
    if (message.type !== Type.NON || message.code !== Code.GET) return;
    if (this.#refusedOption(remote, message) !== undefined) return;
    serving.multicast(remote, message, entry.standingOf(remote), datagram.length * amplification);
  }

  #takeAnswer(peer: Peer, message: CoapMessage): void {
    const { transmitter, pings, requests } = this.#parts;
    const outcome = message.type === Type.ACK ? 'acknowledged' : 'reset';
    const expected =
      transmitter.settle(peer, message.messageId, outcome) || pings.answered(peer, message.messageId);
    if (!expected && outcome === 'reset') this.#parts.rejected(peer, message.messageId);
    if (expected && isResponseCode(message.code)) requests.answered(peer, message);
  }

  /**
   * Takes a response that comes in a message of its own: a separate response, or a notification (RFC 7641). The Reset to any other one
   * also ends an observation of which this endpoint knows nothing any more (RFC 7641 section 3.6).
   */
  #takeResponse(remote: Remote, known: Peer | undefined, message: CoapMessage, bytes: number): void {
    const { clock, exchanges, exit, peers, requests, observations } = this.#parts;
    const { type, messageId, options } = message;
    const now = clock.now();
    const repeated = type === Type.CON && known && exchanges.find(known, messageId, now);
    const reply = repeated ? repeated.table?.replyOf(repeated) : undefined;
    const acknowledge = () => {
      if (type !== Type.CON) return;
      exit.acknowledge(exchanges.open(known ?? peers.admitted(remote, bytes), messageId, now), messageId);
    };
    if (known && reply) exit.repeat(known, reply);
    else if (known && requests.awaits(known, message)) {
      // The exchange is opened before the request is settled: settling the last request would forget an idle peer.
      acknowledge();
      requests.answered(known, message);
    } else {
      const taker = observations.takerOf(remote, message);
      const isKnown = taker && this.#refusedOption(remote, message) === undefined;
      if (isKnown) {
        if (taker.take(message, remote, now)) acknowledge();
      } else if (taker?.isProof) {
        // What is outside of a protected notification proves nothing.
      } else {
        if (type === Type.CON || hasOption(options, Option.Observe)) exit.reset(known ?? remote, messageId);
        taker?.lost();
      }
    }
  }

  #takeRequest(peer: Peer, message: CoapMessage): void {
    const { clock, entry, exchanges, exit, serving } = this.#parts;
    const now = clock.now();
    const repeated = exchanges.find(peer, message.messageId, now);
    if (repeated) {
      const reply = message.type === Type.CON ? repeated.table?.replyOf(repeated) : undefined;
      if (reply) exit.repeat(peer, reply);
      return;
    }
    peer.standing = entry.standingOf(peer);
    const exchange = exchanges.open(peer, message.messageId, now);
    const critical = this.#refusedOption(peer, message);
    if (critical !== undefined) {
      // Section 5.4.1: a confirmable request gets 4.02, a non-confirmable one is dropped.
      if (message.type === Type.CON)
        exit.respond(exchange, message, refusal(Code.BadOption, `option ${critical}`));
      return;
    }
    const request = new CoapRequest(peer, message, false, message.payload, peer);
    if (peer.room !== Number.POSITIVE_INFINITY) {
      const { echo } = request;
      if (echo && exit.isFresh(echo, peer)) peer.isReachable = true;
    }
    serving.serve(exchange, message, request);
  }

  /** Number of a critical option because of which a message is refused. */
  #refusedOption({ address }: Remote, { options }: CoapMessage): number | undefined {
    const critical = unacceptableOption(options, this.#parts.isProtected);
    if (critical !== undefined)
      this.#parts.events.emit('coap.bad-option', { option: critical, peer: address });
    return critical;
  }
}
