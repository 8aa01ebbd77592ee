import type { Clock } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import { encodeEmpty, Type } from './codec.ts';
import type { Peer, Transmission } from './peer.ts';
import type { Transmitter } from './transmission.ts';

/** CoAP pings (RFC 7252 section 4.3). All who ask at the same time share one ping. */
export class Pings {
  readonly #clock: Clock;
  readonly #transmitter: Transmitter;
  /** By peer and timeout. */
  readonly #running = new Map<string, Promise<boolean>>();

  constructor(clock: Clock, transmitter: Transmitter) {
    this.#clock = clock;
    this.#transmitter = transmitter;
  }

  /**
   * Resolves with whether an endpoint answers at this address within `timeout` milliseconds.
   * @throws {PosternError} `full` when other messages to the peer kept the ping from being sent, `unavailable` when the
   * endpoint stopped. Neither says anything of the peer
   */
  ping(peer: Peer, timeout: number): Promise<boolean> {
    const key = `${peer.key} ${timeout}`;
    const running = this.#running.get(key);
    if (running) return running;
    const started = this.#start(peer, timeout).finally(() => this.#running.delete(key));
    this.#running.set(key, started);
    return started;
  }

  #start(peer: Peer, timeout: number): Promise<boolean> {
    const messageId = peer.takeMessageId();
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const transmission: Transmission = {
      messageId,
      datagram: encodeEmpty(Type.CON, messageId),
      settled: (outcome) => {
        timer.cancel();
        if (!(outcome instanceof PosternError)) resolve(true);
        else if (outcome.code === 'timeout') resolve(false);
        else reject(outcome);
      },
    };
    const timer = this.#clock.after(timeout, () => {
      const isOnWire = peer.outbound[0] === transmission;
      this.#transmitter.cancel(peer, transmission);
      if (isOnWire) resolve(false);
      else reject(new PosternError('full', `a ping to ${peer.key} waited behind other messages`));
    });
    this.#transmitter.submit(peer, transmission);
    return promise;
  }
}
