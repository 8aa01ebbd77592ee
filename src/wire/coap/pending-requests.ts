import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import { type CoapMessage, type CoapOption, encode, noBytes, Type } from './codec.ts';
import { unacceptableOption } from './options.ts';
import type { Peer, Transmission } from './peer.ts';
import type { Transmitter } from './transmission.ts';

export interface OutgoingRequest {
  readonly code: number;
  readonly options: readonly CoapOption[];
  readonly payload?: Uint8Array;
  /** Milliseconds to wait for the response in all. */
  readonly timeout: number;
  readonly signal?: AbortSignal;
}

export interface PendingRequestsParts {
  /** How many may wait for a response at one time. */
  readonly limit: number;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly transmitter: Transmitter;
  /** Nothing may be going on with this peer any more. */
  readonly forgetIdle: (peer: Peer) => void;
}

interface PendingRequest {
  readonly peer: Peer;
  readonly settle: (outcome: CoapMessage | PosternError) => void;
}

/** An endpoint's own requests that wait for their responses, by token (RFC 7252 section 5.3). */
export class PendingRequests {
  readonly #parts: PendingRequestsParts;
  readonly #byToken = new Map<string, PendingRequest>();

  constructor(parts: PendingRequestsParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#byToken.size;
  }

  /**
   * Sends a confirmable request and resolves with its response, whatever its code.
   * @throws {PosternError} `timeout`, `unavailable` (Reset, given up or stopped) or `full`
   */
  send(peer: Peer, outgoing: OutgoingRequest): Promise<CoapMessage> {
    const { limit, clock, entropy, transmitter, forgetIdle } = this.#parts;
    const { promise, resolve, reject } = Promise.withResolvers<CoapMessage>();
    if (this.#byToken.size >= limit) {
      forgetIdle(peer);
      reject(new PosternError('full', 'no room for a CoAP request'));
      return promise;
    }
    const token = Buffer.from(entropy.bytes(8));
    const key = keyOf(token);
    const messageId = peer.takeMessageId();
    const datagram = encode({
      type: Type.CON,
      code: outgoing.code,
      messageId,
      token,
      options: outgoing.options,
      payload: outgoing.payload ?? noBytes,
    });
    const transmission: Transmission = {
      messageId,
      datagram,
      settled: (outcome) => {
        if (outcome === 'reset') settle(new PosternError('unavailable', `${peer.key} rejected the request`));
        else if (outcome !== 'acknowledged') settle(outcome);
      },
    };
    const abort = () => settle(new PosternError('unavailable', 'the CoAP request was given up'));
    const timer = clock.after(outgoing.timeout, () =>
      settle(new PosternError('timeout', `no response from ${peer.key} in ${outgoing.timeout} ms`)),
    );
    const settle = (outcome: CoapMessage | PosternError) => {
      if (!this.#byToken.delete(key)) return;
      peer.awaited--;
      timer.cancel();
      outgoing.signal?.removeEventListener('abort', abort);
      transmitter.cancel(peer, transmission);
      forgetIdle(peer);
      if (outcome instanceof PosternError) reject(outcome);
      else resolve(outcome);
    };
    peer.awaited++;
    this.#byToken.set(key, { peer, settle });
    outgoing.signal?.addEventListener('abort', abort, { once: true });
    if (outgoing.signal?.aborted) abort();
    else transmitter.submit(peer, transmission);
    return promise;
  }

  /** Whether somebody waits for this response, from this peer. */
  awaits(peer: Peer, { token }: CoapMessage): boolean {
    return this.#byToken.get(keyOf(token))?.peer === peer;
  }

  answered(peer: Peer, message: CoapMessage): void {
    const pending = this.#byToken.get(keyOf(message.token));
    if (pending?.peer !== peer) return;
    const unacceptable = unacceptableOption(message.options);
    pending.settle(
      unacceptable === undefined
        ? message
        : new PosternError('malformed', `response with critical option ${unacceptable}`),
    );
  }

  stop(): void {
    for (const pending of [...this.#byToken.values()])
      pending.settle(new PosternError('unavailable', 'the CoAP endpoint stopped'));
  }
}

const keyOf = (token: Uint8Array): string => (token as Buffer).toString('latin1');
