import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import { type CoapMessage, encode, encodeEmpty, encodeParts, Type } from './codec.ts';
import { Code } from './codes.ts';
import { EchoGuard } from './echo.ts';
import type { Remote, Reply } from './message.ts';
import { type Exchange, Peer } from './peer.ts';
import { shortened } from './rule-of-three.ts';
import type { Transmitter } from './transmission.ts';
import { Workload } from './workload.ts';

export interface ExitParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly transmitter: Transmitter;
  /** Sends one datagram. */
  readonly send: (datagram: Buffer, port: number, address: string, key: string) => void;
  /** Most confirmable responses on their way to peers, as `Workload` divides them. */
  readonly separateResponses: number;
}

/**
 * The outcome of a notification, on which an observe relation depends (RFC 7641 section 4.5). `sent` is the only
 * outcome of a non-confirmable one. `lost` means that no acknowledgement came, that it could not be sent at all, or that the
 * relation ended because an error was sent (section 4.2).
 */
export type Delivery = 'sent' | 'acknowledged' | 'reset' | 'lost';

export interface Notification {
  readonly messageId: number;
  readonly fate: Promise<Delivery>;
}

/** Answers that each transmission of an own message entitles its peer to: an ACK, a response, and repetitions of both. */
const answersPerMessage = 4;
/** Most answers that a peer is entitled to at one time. */
export const mostAnswersDue = 64;

/**
 * The exit of an endpoint: every datagram leaves here. It is either a message of our own (`ask`), or it is there because of a
 * datagram of the peer. To a peer that has not proved its address, the latter have at most three times the bytes of its datagrams,
 * repetitions, errors, Resets and notifications included (RFC 9175 section 2.6).
 */
export class Exit {
  readonly #parts: ExitParts;
  readonly #guard: EchoGuard;
  readonly #separate: Workload;
  #stopped = false;

  constructor(parts: ExitParts) {
    this.#parts = parts;
    this.#guard = new EchoGuard(parts.clock, parts.entropy);
    this.#separate = new Workload(parts.separateResponses);
  }

  /** Number of confirmable responses that are on their way. */
  get separateResponses(): number {
    return this.#separate.size;
  }

  /** Whether an Echo was issued here to this remote lately, so that the remote receives at its address. */
  isFresh(echo: Uint8Array, remote: Remote): boolean {
    return this.#guard.isFresh(echo, remote);
  }

  /** From now on nothing is sent: the socket may be closed, but work that began before may still end. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * Sends a request or a ping of our own, or a confirmable response, which was counted before. The peer is entitled to answer it.
   */
  ask(datagram: Buffer, peer: Peer): void {
    peer.answersDue = Math.min(peer.answersDue + answersPerMessage, mostAnswersDue);
    this.#send(datagram, peer);
  }

  /** Rejects a message by a Reset, which is not longer than any message (RFC 7252 section 4.2). */
  reset(remote: Remote | Peer, messageId: number): void {
    const datagram = encodeEmpty(Type.RST, messageId);
    if (remote instanceof Peer) remote.answered(datagram.length);
    this.#send(datagram, remote);
  }

  /** Responds to a CON on its ACK, and to a NON by a NON (RFC 7252 section 5.2). */
  respond(exchange: Exchange, { type, messageId, token }: CoapMessage, response: Reply): void {
    const { peer } = exchange;
    const isConfirmed = type === Type.CON;
    const datagram = this.#encoded(
      isConfirmed ? Type.ACK : Type.NON,
      isConfirmed ? messageId : peer.takeMessageId(),
      token,
      response,
      peer,
    );
    if (datagram) this.#reply(exchange, datagram);
  }

  /** Acknowledges a request whose response comes later, or a response that came separately. */
  acknowledge(exchange: Exchange, messageId: number): void {
    this.#reply(exchange, encodeEmpty(Type.ACK, messageId));
  }

  /** Sends a reply again, to a message that was repeated. */
  repeat(peer: Peer, reply: Buffer): void {
    if (reply.length > peer.room) return;
    peer.answered(reply.length);
    this.#send(reply, peer);
  }

  /**
   * Sends the response to a request that was acknowledged. To a peer that has not proved its address it is sent as often as
   * the rule of three allows; at the bound, once and non-confirmable.
   */
  separate(peer: Peer, token: Uint8Array, response: Reply): void {
    const { standing } = peer;
    const isConfirmable = this.#separate.hasRoom(standing, peer.address);
    const messageId = peer.takeMessageId();
    const type = isConfirmable ? Type.CON : Type.NON;
    const datagram = this.#encoded(type, messageId, token, response, peer);
    if (!datagram) return;
    peer.answered(datagram.length);
    if (!isConfirmable) {
      this.#send(datagram, peer);
      return;
    }
    // What is not spent on repetitions is left for the later blocks of the response.
    const mayRepeat = () => {
      if (datagram.length > peer.room) return false;
      peer.answered(datagram.length);
      return true;
    };
    const settled = this.#separate.begin(standing, peer.address);
    this.#parts.transmitter.submit(peer, { messageId, datagram, mayRepeat, settled });
  }

  /**
   * Sends a notification. A peer that has not proved its address gets it once. When it is longer than that peer may get, a 4.01 with
   * an Echo goes out in its place, and the relation ends: the client registers again and returns the Echo.
   */
  notify(peer: Peer, token: Uint8Array, response: Reply, confirmable: boolean): Notification {
    const messageId = peer.takeMessageId();
    const type = confirmable ? Type.CON : Type.NON;
    const datagram = this.#encoded(type, messageId, token, response, peer);
    if (!datagram) return { messageId, fate: Promise.resolve('lost') };
    peer.answered(datagram.length);
    const { promise: fate, resolve } = Promise.withResolvers<Delivery>();
    if (datagram[1]! >= Code.BadRequest) resolve('lost');
    if (confirmable)
      this.#parts.transmitter.submit(peer, {
        messageId,
        datagram,
        mayRepeat: () => peer.room === Number.POSITIVE_INFINITY,
        settled: (outcome) => resolve(outcome instanceof PosternError ? 'lost' : outcome),
      });
    else {
      this.#send(datagram, peer);
      resolve('sent');
    }
    return { messageId, fate };
  }

  /** Responds to a multicast request by a NON, if that is within `room` bytes. */
  multicast(remote: Remote, messageId: number, token: Uint8Array, response: Reply, room: number): void {
    const datagram = encode({ ...response, type: Type.NON, messageId, token });
    if (datagram.length <= room) this.#send(datagram, remote);
  }

  /** A response within the room of its peer. Undefined when not even its header fits. */
  #encoded(
    type: Type,
    messageId: number,
    token: Uint8Array,
    { code, options, payload }: Reply,
    peer: Peer,
  ): Buffer | undefined {
    const datagram = encodeParts(type, code, messageId, token, options, payload);
    const { room } = peer;
    if (datagram.length <= room) return datagram;
    const free = room - 4 - token.length;
    if (free < 0) return undefined;
    const issue = () => this.#guard.issue(peer);
    return encode({ type, messageId, token, ...shortened({ code, options, payload }, free, issue) });
  }

  #reply(exchange: Exchange, datagram: Buffer): void {
    const { peer, table } = exchange;
    table?.complete(exchange, datagram);
    peer.answered(datagram.length);
    this.#send(datagram, peer);
  }

  #send(datagram: Buffer, { port, address, key }: Remote): void {
    if (!this.#stopped) this.#parts.send(datagram, port, address, key);
  }
}
