import type { Clock } from '../../../base/clock.ts';
import type { Entropy } from '../../../base/entropy.ts';
import { PosternError } from '../../../base/errors.ts';
import type { Events } from '../../../base/events.ts';
import { Blockwise } from '../../coap/blockwise.ts';
import { collect } from '../../coap/blockwise-client.ts';
import { type CoapMessage, noBytes } from '../../coap/codec.ts';
import { Code, codeText } from '../../coap/codes.ts';
import { EchoGuard } from '../../coap/echo.ts';
import { failureReply } from '../../coap/failure-reply.ts';
import { type CoapRequest, type Handler, type Remote, type Reply, refusal } from '../../coap/message.ts';
import {
  hasOption,
  Option,
  opaque,
  optionValue,
  sorted,
  uintOption,
  unacceptableOption,
} from '../../coap/options.ts';
import type { OutgoingRequest } from '../../coap/pending-requests.ts';
import type { Protection } from '../../coap/protection.ts';
import type { OscoreContext, OscoreContexts } from './contexts.ts';
import {
  type Content,
  hasOscore,
  headerOf,
  openRequest,
  openResponse,
  type ProtectedRequest,
  protectRequest,
  protectResponse,
} from './messages.ts';
import { OpenedNotifications } from './notifications.ts';
import { pivOf, sequenceOf } from './option.ts';

export interface OscoreParts {
  readonly contexts: OscoreContexts;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
  /** Called with the name of a context when a request in it has verified and is fresh. */
  readonly used?: (name: string) => void;
}

/** Most bytes of a protected message that a proxy has divided into blocks: MAX_UNFRAGMENTED_SIZE (RFC 8613 section 4.1.3.4.2). */
const mostBytes = 4096;
/** The bit of a Block2 option that says that more parts follow (RFC 7959 section 2.2). */
const more = 8;
/** Bounds of the messages that proxies have divided. They are not verified before they are whole. */
const outerLimits = {
  bodyBytes: mostBytes,
  transfers: 64,
  transfersPerPeer: 2,
  totalBytes: 128 * 1024,
  idle: 60_000,
} as const;

/** OSCORE (RFC 8613) for the endpoints of one party: both roles, over all its security contexts. */
export class Oscore implements Protection {
  readonly #parts: OscoreParts;
  readonly #guard: EchoGuard;

  constructor(parts: OscoreParts) {
    this.#parts = parts;
    this.#guard = new EchoGuard(parts.clock, parts.entropy);
  }

  around(handler: Handler, vouch: (remote: Remote, identity: string) => void): Handler {
    const whole: Handler = (request) => this.#serve(request, handler, vouch);
    const outer = new Blockwise(whole, this.#parts.clock, outerLimits);
    return (request) => {
      if (!hasOscore(request.message)) return handler(request);
      // Messages to groups need Group OSCORE.
      if (request.multicast) return undefined;
      return isDivided(request) ? outer.handle(request) : whole(request);
    };
  }

  leave(remote: Remote, party: string): void {
    this.#parts.contexts.leave(remote, party);
  }

  partyAt(remote: Remote): string | undefined {
    return this.#parts.contexts.at(remote)?.owner.identity;
  }

  request(
    remote: Remote,
    outgoing: OutgoingRequest,
    send: (outgoing: OutgoingRequest) => Promise<CoapMessage>,
  ): Promise<CoapMessage> | undefined {
    const context = this.#parts.contexts.at(remote);
    return context && this.#ask(context, outgoing, send);
  }

  /** Opens a request, and has it handled (RFC 8613 section 8.2). */
  #serve(
    request: CoapRequest,
    handler: Handler,
    vouch: (remote: Remote, identity: string) => void,
  ): ReturnType<Handler> {
    const { contexts, events, used } = this.#parts;
    const { message, payload, remote } = request;
    const content = { ...message, payload };
    const header = headerOf(content);
    const { kid, piv } = header ?? {};
    if (!kid || !piv) return this.#refused(remote, Code.BadOption, 'Failed to decode COSE');
    const context = contexts.find(kid, header?.kidContext);
    if (!context) return this.#refused(remote, Code.Unauthorized, 'Security context not found');
    const { freshness, name, owner } = context;
    const sequence = sequenceOf(piv);
    if (!freshness.isNew(sequence)) return this.#refused(remote, Code.Unauthorized, 'Replay detected');
    const opened = openRequest(context.keys, { kid, piv }, content);
    if (!opened) return this.#refused(remote, Code.BadRequest, 'Decryption failed');
    const { options } = opened.content;
    const echo = optionValue(options, Option.Echo);
    const { address, port, key } = remote;
    // A context that comes back knows nothing of the requests before: their Echo values must not count.
    const challenged = { address, port, key: `${key} ${name} ${context.start}` };
    const isFirst = !freshness.isKnown;
    if (!freshness.accept(sequence, echo !== undefined && this.#guard.isFresh(echo, challenged))) {
      const fields = { options: [opaque(Option.Echo, this.#guard.issue(challenged))] };
      // The request may be repeated from an earlier run, so its nonce may have been used.
      return sealedByOwn(context, opened.request, refusal(Code.Unauthorized, '', fields));
    }
    if (isFirst) events.emit('oscore.proven', { identity: owner.identity, peer: address });
    used?.(name);
    vouch(remote, owner.identity);
    contexts.follow(context, remote);
    const seal = (reply: Reply) => sealed(context, opened.request, reply);
    const critical = unacceptableOption(options);
    if (critical !== undefined) return seal(refusal(Code.BadOption, `option ${critical}`));
    const inner = request.opened(owner, { ...message, ...opened.content }, (reply) =>
      sealedByOwn(context, opened.request, reply),
    );
    return this.#handled(handler, inner, seal);
  }

  /** An error becomes a response before it is protected. */
  #handled(
    handler: Handler,
    request: CoapRequest,
    seal: (reply: Reply) => Reply | Promise<Reply>,
  ): ReturnType<Handler> {
    const { events } = this.#parts;
    const due = (reply: Reply | undefined) => seal(reply ?? refusal(Code.InternalServerError, ''));
    try {
      const outcome = handler(request);
      if (!(outcome instanceof Promise)) return due(outcome);
      return outcome.catch((thrown) => failureReply(thrown, events)).then(due);
    } catch (thrown) {
      return seal(failureReply(thrown, events));
    }
  }

  /** An error that is not protected, because nothing was opened. Nobody may keep it for the next request. */
  #refused({ address }: Remote, code: number, reason: string): Reply {
    this.#parts.events.emit('oscore.refused', { peer: address, reason });
    return refusal(code, reason, { maxAge: 0 });
  }

  /** Sends a request (RFC 8613 section 8.1). A peer that has lost its replay window asks for an Echo once (appendix B.1.2). */
  async #ask(
    context: OscoreContext,
    outgoing: OutgoingRequest,
    send: (outgoing: OutgoingRequest) => Promise<CoapMessage>,
  ): Promise<CoapMessage> {
    const { answer, isOwn } = await this.#askOnce(context, outgoing, send);
    // A resource that wants an Echo answers by the nonce of the request. That is for the caller.
    const echo = isOwn && answer.code === Code.Unauthorized && optionValue(answer.options, Option.Echo);
    if (!echo) return answer;
    const options = sorted([...outgoing.options, opaque(Option.Echo, echo)]);
    return (await this.#askOnce(context, { ...outgoing, options }, send)).answer;
  }

  /** `isOwn` says that the response has a number of the peer. */
  async #askOnce(
    context: OscoreContext,
    outgoing: OutgoingRequest,
    send: (outgoing: OutgoingRequest) => Promise<CoapMessage>,
  ): Promise<{ answer: CoapMessage; isOwn: boolean }> {
    const piv = pivOf(await context.sequence.take());
    demandValid(context);
    const plain = { ...outgoing, payload: outgoing.payload ?? noBytes };
    const { request, message } = protectRequest(context.keys, piv, plain);
    let content: Content | undefined;
    // What does not verify is dropped (section 8.4). A part of a response cannot be verified, and an error may be unprotected.
    const believes = (said: CoapMessage) => {
      if (!hasOscore(said)) return said.code >= Code.BadRequest;
      if ((uintOption(said.options, Option.Block2) ?? 0) & more) return true;
      content = openResponse(context.keys, request, said);
      return content !== undefined;
    };
    const { observation } = outgoing;
    const taker = observation && new OpenedNotifications(context, request, observation);
    const first = await send({ ...outgoing, ...message, believes, ...(taker && { observation: taker }) });
    const { identity } = context.owner;
    if (!hasOscore(first))
      throw new PosternError(
        'unavailable',
        `${identity} answered ${codeText(first.code)} without protection`,
      );
    // A proxy may have divided the response. The requests for the later parts have no payload.
    const { observation: _, ...plainly } = outgoing;
    const later = (extra: OutgoingRequest['options']) =>
      send({ ...plainly, ...message, options: sorted([...message.options, ...extra]), payload: noBytes });
    const { payload } = await collect(later, first, mostBytes);
    content ??= openResponse(context.keys, request, { ...first, payload });
    const isUnexpected = content && !observation && hasOption(content.options, Option.Observe);
    if (!content || isUnexpected)
      throw new PosternError('malformed', `the response of ${identity} does not verify`);
    const critical = unacceptableOption(content.options);
    if (critical !== undefined)
      throw new PosternError('malformed', `response with critical option ${critical}`);
    return { answer: { ...first, ...content }, isOwn: headerOf(first)?.piv !== undefined };
  }
}

/** Whether a proxy has divided a request, or wants a divided response. */
const isDivided = ({ message: { options } }: CoapRequest): boolean =>
  hasOption(options, Option.Block1) || hasOption(options, Option.Block2);

/**
 * A response by the nonce of its request. A notification has a number of its own, the first one too.
 * @throws {PosternError} as `sealedByOwn`
 */
function sealed(context: OscoreContext, request: ProtectedRequest, reply: Reply): Reply | Promise<Reply> {
  if (hasOption(reply.options, Option.Observe)) return sealedByOwn(context, request, reply);
  if (!context.mayAnswer) demandValid(context);
  return protectResponse(context.keys, request, undefined, reply);
}

/**
 * A response by a number of its own.
 * @throws {PosternError} `unavailable` when the context was taken away; else as `SenderSequence.take`
 */
async function sealedByOwn(context: OscoreContext, request: ProtectedRequest, reply: Reply): Promise<Reply> {
  const piv = pivOf(await context.sequence.take());
  demandValid(context);
  return protectResponse(context.keys, request, piv, reply);
}

function demandValid({ isRevoked }: OscoreContext): void {
  if (isRevoked) throw new PosternError('unavailable', 'the security context was taken away');
}
