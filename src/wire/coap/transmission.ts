import type { Clock, Timer } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Peer, Transmission } from './peer.ts';

/** Transmission parameters of RFC 7252 section 4.8, and a bound. */
export interface TransmissionParameters {
  /** ACK_TIMEOUT in milliseconds. */
  readonly ackTimeout: number;
  /** ACK_RANDOM_FACTOR. */
  readonly ackRandomFactor: number;
  /** MAX_RETRANSMIT. */
  readonly maxRetransmit: number;
  /** Most confirmable messages that wait for one peer behind the one on the wire. */
  readonly waitingPerPeer: number;
}

export const transmissionDefaults: TransmissionParameters = {
  ackTimeout: 2000,
  ackRandomFactor: 1.5,
  maxRetransmit: 4,
  waitingPerPeer: 16,
};

/**
 * Sends confirmable messages, with retransmission (RFC 7252 section 4.2). Only one message to each peer is on the wire
 * at a time (NSTART = 1, section 4.7).
 */
export class Transmitter {
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  readonly #parameters: TransmissionParameters;
  readonly #send: (datagram: Buffer, peer: Peer) => void;
  readonly #idle: (peer: Peer) => void;
  readonly #timers = new Map<Peer, Timer>();
  #stopped: PosternError | undefined;

  /** `idle` is called with a peer when no more confirmable messages to it wait or are on the wire. */
  constructor(
    clock: Clock,
    entropy: Entropy,
    parameters: TransmissionParameters,
    send: (datagram: Buffer, peer: Peer) => void,
    idle: (peer: Peer) => void,
  ) {
    this.#clock = clock;
    this.#entropy = entropy;
    this.#parameters = parameters;
    this.#send = send;
    this.#idle = idle;
  }

  /**
   * Sends a message, or lets it wait behind the one on the wire. Settles it with `full` when too many wait, and with
   * `unavailable` after `stop`.
   */
  submit(peer: Peer, transmission: Transmission): void {
    if (this.#stopped) {
      transmission.settled(this.#stopped);
      return;
    }
    if (peer.outbound.length > this.#parameters.waitingPerPeer) {
      transmission.settled(new PosternError('full', `too many messages wait for ${peer.key}`));
      return;
    }
    peer.outbound.push(transmission);
    if (peer.outbound.length === 1) this.#begin(peer, transmission);
  }

  /** Takes in an ACK or Reset. Returns whether it belongs to the message on the wire. */
  settle(peer: Peer, messageId: number, outcome: 'acknowledged' | 'reset'): boolean {
    const current = peer.outbound[0];
    if (current?.messageId !== messageId) return false;
    this.#finish(peer, outcome);
    return true;
  }

  /** Stops sending a message, whether it is on the wire or waits. The message is not settled. */
  cancel(peer: Peer, transmission: Transmission): void {
    const place = peer.outbound.indexOf(transmission);
    if (place === 0) this.#finish(peer, undefined);
    else if (place > 0) peer.outbound.splice(place, 1);
  }

  /** Settles all messages with `unavailable`. Nothing is sent from then on. */
  stop(): void {
    const stopped = new PosternError('unavailable', 'the CoAP endpoint stopped');
    // Set first: a message that is settled may be submitted again.
    this.#stopped = stopped;
    for (const [peer, timer] of this.#timers) {
      timer.cancel();
      for (const transmission of peer.outbound.splice(0)) transmission.settled(stopped);
    }
    this.#timers.clear();
  }

  #begin(peer: Peer, transmission: Transmission): void {
    const { ackTimeout, ackRandomFactor } = this.#parameters;
    this.#attempt(peer, transmission, ackTimeout * (1 + (ackRandomFactor - 1) * this.#entropy.uniform()), 0);
  }

  #attempt(peer: Peer, transmission: Transmission, timeout: number, retransmissions: number): void {
    this.#timers.set(
      peer,
      this.#clock.after(timeout, () => {
        if (retransmissions < this.#parameters.maxRetransmit && (transmission.mayRepeat?.() ?? true))
          this.#attempt(peer, transmission, timeout * 2, retransmissions + 1);
        else this.#finish(peer, new PosternError('timeout', `no acknowledgement from ${peer.key}`));
      }),
    );
    this.#send(transmission.datagram, peer);
  }

  #finish(peer: Peer, outcome: 'acknowledged' | 'reset' | PosternError | undefined): void {
    this.#timers.get(peer)?.cancel();
    this.#timers.delete(peer);
    const done = peer.outbound.shift();
    const next = peer.outbound[0];
    if (next) this.#begin(peer, next);
    if (outcome !== undefined) done?.settled(outcome);
    if (peer.outbound.length === 0) this.#idle(peer);
  }
}
