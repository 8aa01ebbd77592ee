import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import { type CoapMessage, type CoapOption, encode, noBytes, Type } from './codec.ts';
import type { NotificationTaker } from './observation.ts';
import type { Observations } from './observations.ts';
import { unacceptableOption } from './options.ts';
import type { Peer, Transmission } from './peer.ts';
import type { Transmitter } from './transmission.ts';

/** A request without message ID and token. */
export interface OutgoingRequest {
  readonly code: number;
  /** In ascending order of their numbers. */
  readonly options: readonly CoapOption[];
  readonly payload?: Uint8Array;
  /** Milliseconds to wait for the response, all retransmissions included. */
  readonly timeout: number;
  /** Cancels the request. */
  readonly signal?: AbortSignal;
  /**
   * The peer asked for this request, and may have forged its address. So until the peer has answered one, the request is sent
   * again only as often as the rule of three allows (`Account`).
   */
  readonly isOwed?: boolean;
  /**
   * The only party that may read the request, by the name that it has proved. Without protection towards this party nothing is
   * sent.
   */
  readonly party?: string;
  /** The token; a random one if absent. */
  readonly token?: Uint8Array;
  /** Takes the notifications that follow. The request has its token. */
  readonly observation?: NotificationTaker;
  /** Whether a response with the token of the request is from its peer. Another one is dropped, and the request waits on. */
  readonly believes?: (response: CoapMessage) => boolean;
}

/** What `PendingRequests` needs from its endpoint. */
export interface PendingRequestsParts {
  /** Most requests that wait for a response at one time. */
  readonly limit: number;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly transmitter: Transmitter;
  /** Whether protected messages are opened. */
  readonly isProtected: boolean;
  readonly observations: Observations;
  /** Called when a peer may have become idle. It drops the peer if so. */
  readonly forgetIdle: (peer: Peer) => void;
}

interface PendingRequest {
  readonly peer: Peer;
  readonly believes: OutgoingRequest['believes'];
  readonly observation: OutgoingRequest['observation'];
  readonly settle: (outcome: CoapMessage | PosternError) => void;
}

/** The requests of an endpoint that wait for their responses, matched by token and peer (RFC 7252 section 5.3). */
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
   * Sends a confirmable request. Resolves with its response, whatever the code of the response.
   * @throws {PosternError} `timeout`; `unavailable` when the peer sends a Reset, the signal is aborted or the endpoint
   *   is stopped; `full` when too many requests wait, or others kept it from being sent; `malformed` when the response has an unacceptable critical option
   */
  send(peer: Peer, outgoing: OutgoingRequest): Promise<CoapMessage> {
    const { limit, clock, entropy, transmitter, forgetIdle } = this.#parts;
    const { promise, resolve, reject } = Promise.withResolvers<CoapMessage>();
    if (this.#byToken.size >= limit) {
      forgetIdle(peer);
      reject(new PosternError('full', 'no room for a CoAP request'));
      return promise;
    }
    const { observation } = outgoing;
    const token = Buffer.from(observation?.token ?? outgoing.token ?? entropy.bytes(8));
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
      ...(outgoing.isOwed && {
        mayRepeat: () => {
          if (datagram.length > peer.room) return false;
          peer.answered(datagram.length);
          return true;
        },
      }),
      settled: (outcome) => {
        // An ACK alone settles nothing: the response may come separately.
        if (outcome === 'reset') settle(new PosternError('unavailable', `${peer.key} rejected the request`));
        else if (outcome !== 'acknowledged') settle(outcome);
      },
    };
    const abort = () => settle(new PosternError('unavailable', 'the CoAP request was cancelled'));
    const timer = clock.after(outgoing.timeout, () => {
      // A request that was never sent says nothing of the peer.
      const waited = peer.outbound.indexOf(transmission) > 0;
      settle(
        waited
          ? new PosternError('full', `a request to ${peer.key} waited behind other messages`)
          : new PosternError('timeout', `no response from ${peer.key} in ${outgoing.timeout} ms`),
      );
    });
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
    this.#byToken.set(key, { peer, believes: outgoing.believes, observation, settle });
    outgoing.signal?.addEventListener('abort', abort, { once: true });
    if (outgoing.isOwed) peer.answered(datagram.length);
    if (outgoing.signal?.aborted) abort();
    else transmitter.submit(peer, transmission);
    return promise;
  }

  /** Whether a request to this peer waits for this response. */
  awaits(peer: Peer, { token }: CoapMessage): boolean {
    return this.#byToken.get(keyOf(token))?.peer === peer;
  }

  /** Whether a response says that it is for a request that waits, and is not. */
  isForged(peer: Peer, message: CoapMessage): boolean {
    const pending = this.#byToken.get(keyOf(message.token));
    return pending?.peer === peer && pending.believes?.(message) === false;
  }

  /** Settles the request that waits for this response. Ignores a response that nothing waits for. */
  answered(peer: Peer, message: CoapMessage): void {
    const pending = this.#byToken.get(keyOf(message.token));
    if (pending?.peer !== peer) return;
    // It has the token, so it receives there.
    peer.isReachable = true;
    const { clock, isProtected, observations } = this.#parts;
    const unacceptable = unacceptableOption(message.options, isProtected);
    // Before the request is settled: a notification may come before the caller has seen the response.
    if (pending.observation && unacceptable === undefined)
      observations.responded(peer, pending.observation, message, clock.now());
    pending.settle(
      unacceptable === undefined
        ? message
        : new PosternError('malformed', `response with critical option ${unacceptable}`),
    );
  }

  /** Rejects all requests with `unavailable`. */
  stop(): void {
    for (const pending of [...this.#byToken.values()])
      pending.settle(new PosternError('unavailable', 'the CoAP endpoint stopped'));
  }
}

const keyOf = (token: Uint8Array): string => (token as Buffer).toString('latin1');
