import type { Monotonic } from '../../base/clock.ts';
import type { PosternError } from '../../base/errors.ts';
import type { Remote } from './message.ts';
import type { MessageIds } from './message-ids.ts';

/** A message that was received, and the reply to it. `older` and `younger` link all exchanges in order of arrival. */
export interface Exchange {
  readonly peer: Peer;
  readonly messageId: number;
  readonly expires: Monotonic;
  /** Datagram that is sent again when the message is repeated. `undefined` while the handler works. */
  reply: Buffer | undefined;
  older: Exchange | undefined;
  younger: Exchange | undefined;
}

/** A confirmable message that waits or is on the wire, until its ACK, its Reset, or the end of retransmission. */
export interface Transmission {
  readonly messageId: number;
  readonly datagram: Buffer;
  /** Called once at the end, unless the transmission is cancelled. Errors are `timeout`, `full` and `unavailable`. */
  readonly settled: (outcome: 'acknowledged' | 'reset' | PosternError) => void;
}

/** State about one remote address and port. It is dropped when it is idle. */
export class Peer implements Remote {
  readonly address: string;
  readonly port: number;
  readonly key: string;
  /** Messages received from it lately, by message ID, in order of arrival. Used for deduplication. */
  readonly exchanges = new Map<number, Exchange>();
  /** Confirmable messages to it. The first is on the wire, the others wait (NSTART = 1, RFC 7252 section 4.7). */
  readonly outbound: Transmission[] = [];
  /** Number of requests to it that wait for their response. */
  awaited = 0;
  readonly #messageIds: MessageIds;

  constructor(remote: Remote, messageIds: MessageIds) {
    this.address = remote.address;
    this.port = remote.port;
    this.key = remote.key;
    this.#messageIds = messageIds;
  }

  /** Returns a message ID for the next message to it. */
  takeMessageId(): number {
    return this.#messageIds.take(this.key);
  }

  /** Whether no exchange is remembered, no message is on its way and no request waits. */
  get idle(): boolean {
    return this.exchanges.size === 0 && this.outbound.length === 0 && this.awaited === 0;
  }
}

/** The value of `Remote.key`. */
export const remoteKey = (address: string, port: number): string => `${address}|${port}`;
