import type { Clock, Timer } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import { encodeEmpty, Type } from './codec.ts';
import type { Peer } from './peer.ts';

export interface PingsParts {
  readonly clock: Clock;
  /** Sends one datagram to which an answer is expected. */
  readonly send: (datagram: Buffer, peer: Peer) => void;
  /** Milliseconds until a ping is sent again. The time doubles. */
  readonly repeatAfter: number;
  /** Most pings at one time. */
  readonly limit: number;
  /** Called when a peer may have become idle. */
  readonly forgetIdle: (peer: Peer) => void;
}

interface Running {
  readonly promise: Promise<boolean>;
  readonly settle: (outcome: boolean | PosternError) => void;
}

/**
 * CoAP pings (RFC 7252 section 4.3). All who ask at the same time share one ping. A ping does not wait behind other messages to
 * its peer: then the state of a queue would decide whether the peer counts as there. Because of the sharing, this is one small
 * message more than NSTART allows.
 */
export class Pings {
  readonly #parts: PingsParts;
  /** By peer and timeout. */
  readonly #running = new Map<string, Running>();
  /** By peer and message ID. */
  readonly #expected = new Map<string, Running>();

  constructor(parts: PingsParts) {
    this.#parts = parts;
  }

  /**
   * Resolves with whether an endpoint answers at this address within `timeout` milliseconds.
   * @throws {PosternError} `full` when there are too many pings, `unavailable` when the endpoint stops. Neither says anything
   *   of the peer
   */
  ping(peer: Peer, timeout: number): Promise<boolean> {
    const { clock, send, repeatAfter, limit, forgetIdle } = this.#parts;
    const key = `${peer.key} ${timeout}`;
    const running = this.#running.get(key);
    if (running) return running.promise;
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    if (this.#running.size >= limit) {
      forgetIdle(peer);
      reject(new PosternError('full', 'no room for a CoAP ping'));
      return promise;
    }
    const messageId = peer.takeMessageId();
    const datagram = encodeEmpty(Type.CON, messageId);
    let repetition: Timer | undefined;
    const transmit = (wait: number) => {
      repetition = clock.after(wait, () => transmit(wait * 2));
      send(datagram, peer);
    };
    const settle: Running['settle'] = (outcome) => {
      deadline.cancel();
      repetition?.cancel();
      this.#running.delete(key);
      this.#expected.delete(expectedKey(peer, messageId));
      peer.awaited--;
      forgetIdle(peer);
      if (outcome instanceof PosternError) reject(outcome);
      else resolve(outcome);
    };
    const deadline = clock.after(timeout, () => settle(false));
    peer.awaited++;
    this.#running.set(key, { promise, settle });
    this.#expected.set(expectedKey(peer, messageId), { promise, settle });
    transmit(repeatAfter);
    return promise;
  }

  /** Takes an ACK or a Reset. Returns whether it answers a ping. */
  answered(peer: Peer, messageId: number): boolean {
    const running = this.#expected.get(expectedKey(peer, messageId));
    running?.settle(true);
    return running !== undefined;
  }

  /** Rejects all pings with `unavailable`. */
  stop(): void {
    for (const { settle } of [...this.#running.values()])
      settle(new PosternError('unavailable', 'the CoAP endpoint stopped'));
  }
}

const expectedKey = ({ key }: Peer, messageId: number): string => `${key} ${messageId}`;
