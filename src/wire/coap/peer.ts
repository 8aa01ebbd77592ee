import { Standing } from '../../base/admission.ts';
import type { Monotonic } from '../../base/clock.ts';
import type { PosternError } from '../../base/errors.ts';
import type { KeptReply } from './kept-replies.ts';
import { type Account, amplification, type Remote } from './message.ts';
import type { MessageIds } from './message-ids.ts';

/** Where exchanges are remembered. */
export interface ExchangeTable {
  complete(exchange: Exchange, reply: Buffer): void;
  replyOf(exchange: Exchange): Buffer | undefined;
  forget(exchange: Exchange): void;
}

/** A message that was received, and the reply to it. */
export interface Exchange {
  readonly peer: Peer;
  readonly messageId: number;
  readonly expires: Monotonic;
  /** Where it is remembered. Undefined when it was forgotten. */
  table: ExchangeTable | undefined;
  /** The datagram that is sent again when the message is repeated. `undefined` while the handler works. */
  reply: KeptReply | undefined;
  /** Bytes of `reply`. */
  replyBytes: number;
  /** Neighbours among the exchanges of its table, in order of arrival. */
  older: Exchange | undefined;
  younger: Exchange | undefined;
  /** Neighbours among the exchanges of its peer, in order of arrival. */
  earlier: Exchange | undefined;
  later: Exchange | undefined;
  /** The next one in the same bucket of the `ExchangeIndex`. */
  next: Exchange | undefined;
}

/** A confirmable message that waits or is on the wire, until its ACK, its Reset, or the end of retransmission. */
export interface Transmission {
  readonly messageId: number;
  readonly datagram: Buffer;
  /** Asked before it is sent again. Without an answer it is given up when this is false; absent: it may always be. */
  readonly mayRepeat?: () => boolean;
  /** Called once at the end, unless the transmission is cancelled. Errors are `timeout`, `full` and `unavailable`. */
  readonly settled: (outcome: 'acknowledged' | 'reset' | PosternError) => void;
}

/** State about one remote address and port. It is dropped when it is idle. */
export class Peer implements Remote, Account {
  address: string;
  port: number;
  readonly key: string;
  readonly identity: string | undefined;
  readonly credential: string | undefined;
  readonly datagramBytes: number | undefined;
  /** A number that no other peer of its endpoint has. */
  readonly serial: number;
  /** Messages received from it lately: their number, the first of them and the last. Used for deduplication. */
  exchanges = 0;
  firstExchange: Exchange | undefined;
  lastExchange: Exchange | undefined;
  /** Confirmable messages to it. The first is on the wire, the others wait (NSTART = 1, RFC 7252 section 4.7). */
  readonly outbound: Transmission[] = [];
  /** Number of requests to it that wait for their response. */
  awaited = 0;
  /** Number of those who send to it later, and need its account until then. */
  retained = 0;
  standing: Standing = Standing.Stranger;
  /** It has returned an Echo, so it receives at the address that it claims. */
  isReachable = false;
  /** Datagrams that are still admitted of the conversation that was admitted last. */
  credit = 0;
  /** Answers to own messages that are still admitted. */
  answersDue = 0;
  #earned = 0;
  readonly #messageIds: MessageIds;

  constructor(remote: Remote, serial: number, messageIds: MessageIds) {
    this.serial = serial;
    this.address = remote.address;
    this.port = remote.port;
    this.key = remote.key;
    this.identity = remote.identity;
    this.credential = remote.credential;
    this.datagramBytes = remote.datagramBytes;
    this.#messageIds = messageIds;
  }

  /**
   * Bytes that may be sent to it now. It is three times the bytes that it has sent, less what it got since, as long as its
   * address may be forged (RFC 9175 section 2.6).
   */
  get room(): number {
    return this.isReachable || this.standing === Standing.Proven ? Number.POSITIVE_INFINITY : this.#earned;
  }

  /** It was heard at this address. With a secure transport the address may change. */
  follow({ address, port }: Remote): void {
    this.address = address;
    this.port = port;
  }

  /** Counts a datagram from it. */
  received(bytes: number): void {
    this.#earned += amplification * bytes;
  }

  /** Counts a datagram to it that answers one of its own. */
  answered(bytes: number): void {
    this.#earned = Math.max(0, this.#earned - bytes);
  }

  /** Returns a message ID for the next message to it. */
  takeMessageId(): number {
    return this.#messageIds.take(this.key);
  }

  /** Whether no exchange is remembered, no message is on its way, no request waits and nobody will send to it. */
  get idle(): boolean {
    return this.exchanges === 0 && this.outbound.length === 0 && this.awaited === 0 && this.retained === 0;
  }
}

/** The value of `Remote.key`. */
export const remoteKey = (address: string, port: number): string => `${address}|${port}`;
