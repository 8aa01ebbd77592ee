import type { Clock } from '../../base/clock.ts';
import { Code } from './codes.ts';
import type { CoapRequest, Handler, Remote, Reply } from './message.ts';
import { amplification, isError, refusal, reply } from './message.ts';
import { Option, sorted, uint, uintOption } from './options.ts';
import { encodedLength } from './rule-of-three.ts';
import { type BlockwiseLimits, blockwiseDefaults, Transfers } from './transfers.ts';

/** The value of Block1 or Block2 (RFC 7959 section 2.2). */
export interface Block {
  /** Index of the block, from 0. */
  readonly number: number;
  /** Whether further blocks follow. */
  readonly more: boolean;
  /** Size exponent (SZX): a block has 2^(exponent + 4) bytes. 0 to 6; 7 is reserved. */
  readonly exponent: number;
}

/** Exponent of the largest block size, 1024 bytes (RFC 7959 section 2.2). */
export const largestExponent = 6;
/** Bytes of a block with this size exponent. */
export const blockSize = (exponent: number): number => 1 << (exponent + 4);
/**
 * The largest size exponent, up to `largest`, with which a block and what else is in its datagram are no more than the peer takes. The
 * smallest blocks are always tried.
 * @param overhead bytes of the datagram without the block
 * @param bytes of the body
 */
export function exponentFor(remote: Remote, overhead: number, bytes: number, largest: number): number {
  const { datagramBytes: most = Number.POSITIVE_INFINITY } = remote;
  let exponent = largest;
  while (exponent > 0 && overhead + Math.min(bytes, blockSize(exponent)) > most) exponent--;
  return exponent;
}

/** A block as the unsigned integer that a Block1 or Block2 option holds. */
export const packBlock = ({ number, more, exponent }: Block): number =>
  number * 16 + (more ? 8 : 0) + exponent;

/** Reads the unsigned integer of a Block1 or Block2 option. Returns `undefined` for an option that is absent. */
export function unpackBlock(value: number | undefined): Block | undefined {
  if (value === undefined) return undefined;
  return { number: Math.floor(value / 16), more: (value & 8) !== 0, exponent: value & 7 };
}

/**
 * Key of a transfer: the remote, the method and the options, which distinguish two transfers of one peer (RFC 7959
 * section 2.5, RFC 9175 section 3.3). Block1, Block2 and Observe are left out, since they may differ between the requests of
 * one transfer, and so are the options that are NoCacheKey, such as Size1 and Echo (RFC 7252 sections 5.4.2 and 5.4.6).
 */
function transferKey(request: CoapRequest): string {
  const { remote, method } = request;
  // What is protected is not mixed with what somebody else sends from the same address.
  let key = `${remote.key} ${remote.identity ?? ''} ${method}`;
  for (const { number, value } of request.message.options) {
    if (number === Option.Block1.number || number === Option.Block2.number) continue;
    if (number === Option.Observe.number || (number & 0x1e) === 0x1c) continue;
    key += ` ${number}=${(value as Buffer).toString('latin1')}`;
  }
  return key;
}

const continued = (block: Block): Reply =>
  reply(Code.Continue, { options: [uint(Option.Block1, packBlock(block))] });

/**
 * Block-wise transfer in both directions around a handler that sees whole bodies only (RFC 7959). The handler gets a
 * request body when its last block has arrived. An incomplete body never reaches the handler.
 */
export class Blockwise {
  readonly #handler: Handler;
  readonly #limits: BlockwiseLimits;
  readonly #incoming: Transfers;
  readonly #outgoing: Transfers;

  constructor(handler: Handler, clock: Clock, limits: BlockwiseLimits = blockwiseDefaults) {
    this.#handler = handler;
    this.#limits = limits;
    this.#incoming = new Transfers(limits, clock);
    this.#outgoing = new Transfers(limits, clock);
  }

  /** Number of request bodies and response bodies in transfer. */
  get footprint() {
    const bytes = this.#incoming.bytes + this.#outgoing.bytes;
    return { incoming: this.#incoming.size, outgoing: this.#outgoing.size, bytes };
  }

  /** The wrapped handler, to be given to an endpoint. */
  readonly handle: Handler = (request) => {
    const { options } = request.message;
    const block1 = unpackBlock(uintOption(options, Option.Block1));
    const block2 = unpackBlock(uintOption(options, Option.Block2));
    if (block1?.exponent === 7 || block2?.exponent === 7)
      return refusal(Code.BadRequest, 'reserved block size');
    if (block1) return this.#receiveBlock(request, block1, block2);
    if (block2 && block2.number > 0) return this.#laterBlock(request, block2);
    return this.#finish(request, block2, undefined);
  };

  #receiveBlock(request: CoapRequest, block: Block, block2: Block | undefined): ReturnType<Handler> {
    const { payload, remote } = request;
    const key = transferKey(request);
    if (block.more && payload.length !== blockSize(block.exponent))
      return refusal(Code.BadRequest, 'payload length differs from the block size');
    const announced = uintOption(request.message.options, Option.Size1) ?? 0;
    if (
      Math.max(announced, block.number * blockSize(block.exponent) + payload.length) > this.#limits.bodyBytes
    ) {
      this.#incoming.delete(key);
      return refusal(Code.RequestEntityTooLarge, 'body too large', {
        options: [uint(Option.Size1, this.#limits.bodyBytes)],
      });
    }
    const transfer =
      block.number === 0 ? this.#incoming.begin(key, remote, request.standing) : this.#incoming.get(key);
    if (!transfer)
      return block.number === 0
        ? refusal(Code.ServiceUnavailable, 'too many transfers', { maxAge: 5 })
        : refusal(Code.RequestEntityIncomplete, 'a block is missing');
    if (transfer.bytes !== block.number * blockSize(block.exponent)) {
      this.#incoming.delete(key);
      return refusal(Code.RequestEntityIncomplete, 'a block is missing');
    }
    if (!this.#incoming.append(transfer, payload)) {
      this.#incoming.delete(key);
      return refusal(Code.ServiceUnavailable, 'no memory for the transfer', { maxAge: 5 });
    }
    if (block.more) return continued(block);
    this.#incoming.delete(key);
    return this.#finish(request.withPayload(transfer.buffer.subarray(0, transfer.bytes)), block2, block);
  }

  #finish(request: CoapRequest, block2: Block | undefined, block1: Block | undefined): ReturnType<Handler> {
    const outcome = this.#handler(request);
    return outcome instanceof Promise
      ? outcome.then((response) => this.#firstBlock(request, response, block2, block1))
      : this.#firstBlock(request, outcome, block2, block1);
  }

  #firstBlock(
    request: CoapRequest,
    response: Reply | undefined,
    block2: Block | undefined,
    block1: Block | undefined,
  ): Reply | undefined {
    if (!response) return undefined;
    const echoed = block1
      ? {
          ...response,
          options: sorted([...response.options, uint(Option.Block1, packBlock({ ...block1, more: false }))]),
        }
      : response;
    const exponent = fittingExponent(request, echoed, block2?.exponent ?? largestExponent);
    if (echoed.payload.length <= blockSize(exponent) && !block2 && !echoed.content) return echoed;
    if (isError(echoed)) return { ...echoed, payload: echoed.payload.subarray(0, blockSize(exponent)) };
    if (echoed.payload.length > blockSize(exponent)) {
      const transfer = this.#outgoing.begin(transferKey(request), request.remote, request.standing);
      const kept = transfer && this.#outgoing.keep(transfer, response);
      // A response that cannot be kept can be made again for each later block, but only if the request has no effect.
      if (!kept && request.method !== Code.GET)
        return refusal(Code.ServiceUnavailable, 'too many transfers', { maxAge: 5 });
    }
    return slice(echoed, { number: 0, more: false, exponent }) ?? echoed;
  }

  #laterBlock(request: CoapRequest, block: Block): ReturnType<Handler> {
    const key = transferKey(request);
    const transfer = this.#outgoing.get(key);
    if (!transfer?.head) {
      if (request.method !== Code.GET)
        return refusal(Code.RequestEntityIncomplete, 'no response is kept for this request');
      const outcome = this.#handler(request);
      const pick = (response: Reply | undefined) =>
        response && !isError(response) ? blockOf(request, response, block) : response;
      return outcome instanceof Promise ? outcome.then(pick) : pick(outcome);
    }
    const { head: kept } = transfer;
    const part = blockOf(request, kept, block);
    if (isError(part)) return part;
    if ((block.number + 1) * blockSize(block.exponent) >= kept.payload.length) this.#outgoing.delete(key);
    return part;
  }
}

/**
 * The size exponent for the blocks of a response. It is the largest, up to the wished one, with which all blocks stay within the
 * amplification limit (RFC 9175 section 2.6): the request that is there and the later ones together earn at least what the
 * blocks take. The smallest blocks are always tried.
 */
function fittingExponent(request: CoapRequest, response: Reply, wished: number): number {
  const { allowance, remote } = request;
  const overhead = overheadOf(request, response) + blockOptionBytes;
  const bytes = response.content?.size ?? response.payload.length;
  const largest = exponentFor(remote, overhead, bytes, Math.min(wished, largestExponent));
  if (allowance === Number.POSITIVE_INFINITY) return largest;
  if (bytes <= blockSize(largest) && overhead + bytes <= allowance) return largest;
  const earned = amplification * laterRequestBytes(request);
  let exponent = largest;
  for (; exponent > 0; exponent--) {
    const each = overhead + blockSize(exponent);
    const later = Math.ceil(bytes / blockSize(exponent)) - 1;
    if (each <= allowance && each * (later + 1) <= allowance + later * earned) break;
  }
  return exponent;
}

/** Most bytes of Block2 and Size2 in the first response. */
const blockOptionBytes = 11;

/** Bytes of a response's datagram without its payload. */
const overheadOf = ({ message }: CoapRequest, { options }: Reply): number =>
  4 + message.token.length + encodedLength(options) + 1;

/**
 * Bytes of the request for a later block, at least: it has no payload and no options about one. A small Block2 takes two bytes.
 */
const laterRequestBytes = ({ message }: CoapRequest): number =>
  4 +
  message.token.length +
  encodedLength(message.options.filter(({ number }) => !ofPayload.has(number))) +
  2;

const ofPayload: ReadonlySet<number> = new Set([
  Option.SyncmlHmac.number,
  Option.BootstrapMac.number,
  Option.Echo.number,
  Option.ContentFormat.number,
  Option.Block1.number,
  Option.Block2.number,
  Option.Size1.number,
]);

/** A later block of a response, or the error for a block that is not there or is too large for the peer. */
function blockOf(request: CoapRequest, response: Reply, block: Block): Reply {
  const part = slice(response, block);
  if (!part) return refusal(Code.BadRequest, 'no such block');
  // What is too large even in the smallest blocks is for the endpoint's exit, which asks for an Echo.
  const isAllowed =
    block.exponent === 0 ||
    overheadOf(request, part) + part.payload.length <=
      Math.min(request.allowance, request.remote.datagramBytes ?? Number.POSITIVE_INFINITY);
  return isAllowed
    ? part
    : refusal(Code.BadRequest, 'block too large for this request, use the block size of the first response');
}

/** One block of a response, with its Block2 option. Returns `undefined` for a block beyond the end of the body. */
function slice({ content, ...response }: Reply, { number, exponent }: Block): Reply | undefined {
  const size = blockSize(exponent);
  const from = number * size;
  const total = content?.size ?? response.payload.length;
  if (from > 0 && from >= total) return undefined;
  const more = from + size < total;
  const options = [...response.options, uint(Option.Block2, packBlock({ number, more, exponent }))];
  if (number === 0 && more) options.push(uint(Option.Size2, total));
  const payload = content
    ? content.read(from, Math.min(size, total - from))
    : response.payload.subarray(from, from + size);
  return { ...response, options: sorted(options), payload };
}
