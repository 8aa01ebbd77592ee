import type { Monotonic } from '../../base/clock.ts';
import type { PosternError } from '../../base/errors.ts';
import type { Remote } from './message.ts';
import type { MessageIds } from './message-ids.ts';

/** A message that was received, and what was sent back for it. Links make the order of age. */
export interface Exchange {
  readonly peer: Peer;
  readonly messageId: number;
  readonly expires: Monotonic;
  /** Sent again when the message comes again; none while the handler works. */
  reply: Buffer | undefined;
  older: Exchange | undefined;
  younger: Exchange | undefined;
}

/** A confirmable message on its way: until its ACK, its Reset, or the last retransmission. */
export interface Transmission {
  readonly messageId: number;
  readonly datagram: Buffer;
  readonly settled: (outcome: 'acknowledged' | 'reset' | PosternError) => void;
}

/** What is known of one remote address and port, as long as something is going on with it. */
export class Peer implements Remote {
  readonly address: string;
  readonly port: number;
  readonly key: string;
  /** Messages received from it lately, by message ID, in order of arrival. */
  readonly exchanges = new Map<number, Exchange>();
  /** Confirmable messages to it: the first is on the wire (NSTART = 1), the others wait. */
  readonly outbound: Transmission[] = [];
  /** Own requests to it that wait for their response. */
  awaited = 0;
  readonly #messageIds: MessageIds;

  constructor(address: string, port: number, key: string, messageIds: MessageIds) {
    this.address = address;
    this.port = port;
    this.key = key;
    this.#messageIds = messageIds;
  }

  takeMessageId(): number {
    return this.#messageIds.take(this.key);
  }

  get idle(): boolean {
    return this.exchanges.size === 0 && this.outbound.length === 0 && this.awaited === 0;
  }
}

export const remoteKey = (address: string, port: number): string => `${address}|${port}`;
