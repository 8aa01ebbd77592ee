import type { Standing } from '../../base/admission.ts';
import { failed } from '../../base/background.ts';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import type { Events } from '../../base/events.ts';
import { type CoapMessage, noBytes, Type } from './codec.ts';
import { Code } from './codes.ts';
import type { Exit } from './exit.ts';
import { failureReply } from './failure-reply.ts';
import { CoapRequest, type Handler, isError, type Remote, type Reply, refusal } from './message.ts';
import type { MessageIds } from './message-ids.ts';
import { MulticastAnswers } from './multicast-answers.ts';
import { Option, uint } from './options.ts';
import type { Exchange } from './peer.ts';
import { Workload } from './workload.ts';

export interface ServingParts {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Gets each request. An error that it throws becomes a response with the error's CoAP code. */
  readonly handler: Handler;
  readonly exit: Exit;
  readonly messageIds: MessageIds;
  /** See `EndpointLimits`. */
  readonly limits: {
    readonly concurrentRequests: number;
    readonly multicastResponses: number;
    readonly piggybackWithin: number;
    readonly leisure: number;
  };
}

/** Max-Age of the 5.03 response at overload: seconds after which the peer may try again. */
const overloadMaxAge = 5;
/** Milliseconds between two events about overload. */
const tellEvery = 60_000;

/** Hands requests to the handler of an endpoint, as many at a time as may be in work, and its responses to the exit. */
export class Serving {
  readonly #parts: ServingParts;
  readonly #working: Workload;
  readonly #multicast: MulticastAnswers;
  #toldAt = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(parts: ServingParts) {
    const { clock, entropy, limits } = parts;
    this.#parts = parts;
    this.#working = new Workload(limits.concurrentRequests);
    this.#multicast = new MulticastAnswers(clock, entropy, limits.leisure, limits.multicastResponses);
  }

  /** Number of requests in work. */
  get working(): number {
    return this.#working.size;
  }

  /** Number of responses to multicast requests that wait. */
  get multicastResponses(): number {
    return this.#multicast.size;
  }

  /** No response leaves any more. */
  stop(): void {
    this.#stopped = true;
    this.#multicast.stop();
  }

  /** Handles a request and responds to it. A slow one is acknowledged first (RFC 7252 section 5.2.2). */
  serve(exchange: Exchange, message: CoapMessage, request: CoapRequest): void {
    const { clock, limits, exit } = this.#parts;
    const { peer } = exchange;
    if (!this.#hasRoom(peer.standing, peer)) {
      exit.respond(exchange, message, {
        code: Code.ServiceUnavailable,
        options: [uint(Option.MaxAge, overloadMaxAge)],
        payload: noBytes,
      });
      return;
    }
    const outcome = this.#handled(request);
    if (!(outcome instanceof Promise)) {
      exit.respond(exchange, message, due(outcome));
      return;
    }
    let acknowledged = false;
    const timer =
      message.type === Type.CON
        ? clock.after(limits.piggybackWithin, () => {
            if (this.#stopped) return;
            acknowledged = true;
            exit.acknowledge(exchange, message.messageId);
          })
        : undefined;
    this.#finish(outcome, peer.standing, peer, (response) => {
      timer?.cancel();
      if (this.#stopped) return;
      if (acknowledged) exit.separate(peer, message.token, due(response));
      else exit.respond(exchange, message, due(response));
    });
  }

  /**
   * Handles a multicast request. Its response goes out within the leisure; an error goes nowhere (RFC 7252 section 8.2).
   * @param room most bytes of the response
   */
  multicast(remote: Remote, message: CoapMessage, standing: Standing, room: number): void {
    const key = `${remote.key} ${message.messageId}`;
    if (this.#multicast.has(key) || !this.#hasRoom(standing, remote)) return;
    const request = new CoapRequest(remote, message, true, message.payload, { room, standing });
    const answer = (response: Reply | undefined) => {
      if (!response || isError(response) || this.#stopped) return;
      const { exit, messageIds } = this.#parts;
      this.#multicast.later(key, () =>
        exit.multicast(remote, messageIds.take(remote.key), message.token, response, room),
      );
    };
    const outcome = this.#handled(request);
    if (outcome instanceof Promise) this.#finish(outcome, standing, remote, answer);
    else answer(outcome);
  }

  #handled(request: CoapRequest): ReturnType<Handler> {
    try {
      return this.#parts.handler(request);
    } catch (thrown) {
      return failureReply(thrown, this.#parts.events);
    }
  }

  #finish(
    outcome: Promise<Reply | undefined>,
    standing: Standing,
    { address }: Remote,
    answer: (response: Reply | undefined) => void,
  ): void {
    const done = this.#working.begin(standing, address);
    outcome
      .catch((thrown) => failureReply(thrown, this.#parts.events))
      .then((response) => {
        done();
        answer(response);
      })
      .catch((thrown) => failed(this.#parts.events, 'coap-response', thrown));
  }

  /** Whether a request may be handled now. */
  #hasRoom(standing: Standing, { address }: Remote): boolean {
    if (this.#working.hasRoom(standing, address)) return true;
    const { clock, events } = this.#parts;
    if (clock.now() - this.#toldAt >= tellEvery) {
      this.#toldAt = clock.now();
      events.emit('coap.overload', { working: this.#working.size });
    }
    return false;
  }
}

/** Only a multicast request may go without a response. */
const due = (response: Reply | undefined): Reply => response ?? refusal(Code.InternalServerError, '');
