import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { type CoapMessage, encode, encodeEmpty, Type } from './codec.ts';
import { EchoGuard } from './echo.ts';
import type { Remote, Reply } from './message.ts';
import type { Exchange, Peer } from './peer.ts';
import { shortened } from './rule-of-three.ts';
import type { Transmitter } from './transmission.ts';
import { Workload } from './workload.ts';

export interface ExitParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly transmitter: Transmitter;
  /** Sends one datagram. */
  readonly send: (datagram: Buffer, remote: Remote) => void;
  /** Most confirmable responses on their way to peers, as `Workload` divides them. */
  readonly separateResponses: number;
}

/**
 * The exit of an endpoint: every answer to a request leaves here. To a peer that has not proved its address, the answers have at
 * most three times the bytes of its datagrams, repetitions and errors included (RFC 9175 section 2.6).
 */
export class Exit {
  readonly #parts: ExitParts;
  readonly #guard: EchoGuard;
  readonly #separate: Workload;

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

  /** Responds to a CON on its ACK, and to a NON by a NON (RFC 7252 section 5.2). */
  respond(exchange: Exchange, { type, messageId, token }: CoapMessage, response: Reply): void {
    const { peer } = exchange;
    const isConfirmed = type === Type.CON;
    const datagram = this.#encoded(
      {
        type: isConfirmed ? Type.ACK : Type.NON,
        messageId: isConfirmed ? messageId : peer.takeMessageId(),
        token,
      },
      response,
      peer,
      peer.room,
    );
    if (datagram) this.#reply(exchange, datagram);
  }

  /** Acknowledges a request whose response comes later. */
  acknowledge(exchange: Exchange, messageId: number): void {
    this.#reply(exchange, encodeEmpty(Type.ACK, messageId));
  }

  /** Sends a reply again, to a message that was repeated. */
  repeat(peer: Peer, reply: Buffer): void {
    if (reply.length > peer.room) return;
    peer.answered(reply.length);
    this.#parts.send(reply, peer);
  }

  /**
   * Sends the response to a request that was acknowledged. To a peer that has not proved its address it is sent as often as
   * the rule of three allows; at the bound, once and non-confirmable.
   */
  separate(peer: Peer, token: Uint8Array, response: Reply): void {
    const { room, standing } = peer;
    const isConfirmable = this.#separate.hasRoom(standing, peer.address);
    const messageId = peer.takeMessageId();
    const head = { type: isConfirmable ? Type.CON : Type.NON, messageId, token };
    const datagram = this.#encoded(head, response, peer, room);
    if (!datagram) return;
    peer.answered(datagram.length);
    if (!isConfirmable) {
      this.#parts.send(datagram, peer);
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

  /** Responds to a multicast request by a NON, if that is within `room` bytes. */
  multicast(remote: Remote, messageId: number, token: Uint8Array, response: Reply, room: number): void {
    const datagram = encode({ ...response, type: Type.NON, messageId, token });
    if (datagram.length <= room) this.#parts.send(datagram, remote);
  }

  /** A response within `room` bytes. Undefined when not even its header fits. */
  #encoded(
    head: Pick<CoapMessage, 'type' | 'messageId' | 'token'>,
    response: Reply,
    remote: Remote,
    room: number,
  ): Buffer | undefined {
    const { code, options, payload } = response;
    const { type, messageId, token } = head;
    const datagram = encode({ type, code, messageId, token, options, payload });
    if (datagram.length <= room) return datagram;
    const free = room - 4 - token.length;
    if (free < 0) return undefined;
    return encode({ type, messageId, token, ...shortened(response, free, () => this.#guard.issue(remote)) });
  }

  #reply(exchange: Exchange, datagram: Buffer): void {
    const { peer, table } = exchange;
    table.complete(exchange, datagram);
    peer.answered(datagram.length);
    this.#parts.send(datagram, peer);
  }
}
