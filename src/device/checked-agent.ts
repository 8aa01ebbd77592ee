import { Agent, type OutgoingMessage } from 'coap';
import { asPosternError } from '../base/errors.ts';
import { type Block2Body, parseBlock2 } from './block2-body.ts';

type Packet = Parameters<Agent['_handle']>[0];
type Address = Parameters<Agent['_handle']>[1];

/** A request whose response is checked. */
interface Watched {
  readonly outgoing: OutgoingMessage;
  readonly body: Block2Body;
  readonly failed: (thrown: Error) => void;
}

/**
 * The client of the package `coap`, with the checks that it lacks: it joins the blocks of a response without a look at
 * their numbers and ETags, throws at a server that acknowledges a wrong block of a request, and answers a repeated ACK by a
 * Reset.
 */
export class CheckedAgent extends Agent {
  /** By token. */
  readonly #watched = new Map<string, Watched>();

  /**
   * Checks the response to a request that was sent.
   * @param failed called when it is not right. The request is not answered then
   */
  watch(outgoing: OutgoingMessage, body: Block2Body, failed: (thrown: Error) => void): Disposable {
    const token = hexOf(outgoing._packet.token) ?? '';
    this.#watched.set(token, { outgoing, body, failed });
    return { [Symbol.dispose]: () => this.#watched.delete(token) };
  }

  override _handle(packet: Packet, from: Address, at: Address): void {
    const token = hexOf(packet.token) ?? '';
    const isAwaited = this._msgIdToReq.has(packet.messageId) || this._tkToReq.has(token);
    // An ACK that nothing waits for is ignored (RFC 7252 section 4.2). When a gateway is slow, each request is repeated.
    if (packet.ack && !isAwaited) return;
    const watched = this.#watched.get(token);
    try {
      if (watched && /^2/.test(packet.code) && packet.code !== '2.31' && !this.#check(packet, watched)) {
        this.#acknowledge(packet, from);
        return;
      }
      super._handle(packet, from, at);
    } catch (thrown) {
      this.#acknowledge(packet, from);
      watched?.failed(asPosternError(thrown));
    }
  }

  /** Takes a block, and hands on the whole body with the last one. Returns false for a repetition. */
  #check(packet: Packet, { outgoing, body }: Watched): boolean {
    const option = (name: string) => {
      const value = packet.options.find((each) => each.name === name)?.value;
      return value instanceof Uint8Array ? value : undefined;
    };
    const value = option('Block2');
    const block = value && parseBlock2(value);
    const isCurrent = packet.messageId === outgoing._packet.messageId;
    if (!body.take(block, hexOf(option('ETag')), packet.payload, isCurrent)) return false;
    packet.payload = block?.more ? Buffer.alloc(0) : body.bytes;
    return true;
  }

  /** A confirmable message that is not handed on is acknowledged all the same, or the server would repeat it. */
  #acknowledge({ confirmable, messageId }: Packet, { port, address }: Address): void {
    const empty = Buffer.of(0x60, 0, messageId >> 8, messageId & 0xff);
    if (confirmable) this._sock?.send(empty, port, address);
  }
}

const hexOf = (bytes: Uint8Array | undefined): string | undefined =>
  bytes && Buffer.from(bytes).toString('hex');
