import { BoundedMap } from '../../base/bounded-map.ts';
import type { Clock, Monotonic } from '../../base/clock.ts';
import { plus } from '../../base/clock.ts';
import type { CoapOption } from './codec.ts';
import { Code } from './codes.ts';
import type { CoapRequest, Handler, Reply } from './message.ts';
import { amplification, isError, refusal, reply } from './message.ts';
import { Option, sorted, uint, uintOption } from './options.ts';

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
/** A block as the unsigned integer that a Block1 or Block2 option holds. */
export const packBlock = ({ number, more, exponent }: Block): number =>
  number * 16 + (more ? 8 : 0) + exponent;

/** Reads the unsigned integer of a Block1 or Block2 option. Returns `undefined` for an option that is absent. */
export function unpackBlock(value: number | undefined): Block | undefined {
  if (value === undefined) return undefined;
  return { number: Math.floor(value / 16), more: (value & 8) !== 0, exponent: value & 7 };
}

/** Bounds of the block-wise transfers of one endpoint. Request bodies and response bodies are counted separately. */
export interface BlockwiseLimits {
  /** Most bytes of one request body. */
  readonly bodyBytes: number;
  /** Most bodies in transfer at one time, of all peers. */
  readonly transfers: number;
  /** Most bodies in transfer at one time, of one peer. */
  readonly transfersPerPeer: number;
  /** Most bytes of all bodies in transfer together. */
  readonly totalBytes: number;
  /** Milliseconds without a new block after which a transfer is dropped. */
  readonly idle: number;
}

export const blockwiseDefaults: BlockwiseLimits = {
  bodyBytes: 64 * 1024,
  transfers: 1024,
  transfersPerPeer: 4,
  totalBytes: 8 * 1024 * 1024,
  idle: 60_000,
};

/** A request body that is arriving, or a response body that is being fetched. */
interface Transfer {
  readonly key: string;
  /** Key of the remote. */
  readonly peer: string;
  readonly chunks: Uint8Array[];
  /** Bytes of all chunks. */
  bytes: number;
  expires: Monotonic;
  /** For a response body: the whole response. */
  head?: Reply;
  /**
   * For a response body: how many bytes may still go out in blocks that are larger than the amplification limit allows
   * for the request of that block alone. It starts with what the first request allowed.
   */
  credit: number;
}

/**
 * The transfers of one direction. A transfer without a new block for `idle` milliseconds is dropped. At the bound for
 * all peers the one that waits longest for a block is dropped; at the bound for one peer a new transfer is refused.
 */
class Transfers {
  readonly #limits: BlockwiseLimits;
  readonly #clock: Clock;
  readonly #perPeer = new Map<string, number>();
  readonly #entries: BoundedMap<string, Transfer>;
  #bytes = 0;

  constructor(limits: BlockwiseLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
    this.#entries = new BoundedMap(limits.transfers, (_, transfer) => this.#forgotten(transfer));
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): Transfer | undefined {
    const found = this.#entries.get(key);
    if (!found || found.expires > this.#clock.now()) return found;
    this.delete(key);
    return undefined;
  }

  /** Starts a transfer and drops an earlier one with the same key. Returns `undefined` when the peer has too many. */
  begin(key: string, peer: string): Transfer | undefined {
    this.delete(key);
    this.#expire();
    const count = this.#perPeer.get(peer) ?? 0;
    if (count >= this.#limits.transfersPerPeer) return undefined;
    const transfer: Transfer = { key, peer, chunks: [], bytes: 0, expires: this.#deadline(), credit: 0 };
    this.#perPeer.set(peer, count + 1);
    this.#entries.set(key, transfer);
    return transfer;
  }

  /** Returns false, and adds nothing, when the bound for the bytes of all transfers would be passed. */
  append(transfer: Transfer, chunk: Uint8Array): boolean {
    if (this.#bytes + chunk.length > this.#limits.totalBytes) return false;
    transfer.chunks.push(chunk);
    transfer.bytes += chunk.length;
    transfer.expires = this.#deadline();
    // The transfers stay in the order in which they expire.
    this.#entries.set(transfer.key, transfer);
    this.#bytes += chunk.length;
    return true;
  }

  delete(key: string): void {
    const found = this.#entries.get(key);
    if (!found) return;
    this.#entries.delete(key);
    this.#forgotten(found);
  }

  #deadline(): Monotonic {
    return plus(this.#clock.now(), this.#limits.idle);
  }

  #expire(): void {
    const now = this.#clock.now();
    for (const [key, { expires }] of this.#entries.entries()) {
      if (expires > now) return;
      this.delete(key);
    }
  }

  #forgotten(transfer: Transfer): void {
    this.#bytes -= transfer.bytes;
    const left = (this.#perPeer.get(transfer.peer) ?? 1) - 1;
    if (left > 0) this.#perPeer.set(transfer.peer, left);
    else this.#perPeer.delete(transfer.peer);
  }
}

/**
 * Key of a transfer: the remote, the method and the options, which distinguish two transfers of one peer (RFC 7959
 * section 2.5, RFC 9175 section 3.3). Block1, Block2, Size1 and Observe are left out, since they may differ between
 * the requests of one transfer.
 */
function transferKey(request: CoapRequest): string {
  let key = `${request.remote.key} ${request.method}`;
  for (const { number, value } of request.message.options) {
    if (number === Option.Block1.number || number === Option.Block2.number) continue;
    if (number === Option.Size1.number || number === Option.Observe.number) continue;
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
    return { incoming: this.#incoming.size, outgoing: this.#outgoing.size };
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
    const transfer = block.number === 0 ? this.#incoming.begin(key, remote.key) : this.#incoming.get(key);
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
    return this.#finish(request.withPayload(Buffer.concat(transfer.chunks)), block2, block);
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
      const transfer = this.#outgoing.begin(transferKey(request), request.remote.key);
      const kept = transfer && this.#outgoing.append(transfer, echoed.payload);
      if (transfer) {
        transfer.head = response;
        transfer.credit = request.allowance;
      }
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
        response && !isError(response) && !fits(request, response, block)
          ? blockTooLarge()
          : response && !isError(response)
            ? (slice(response, block) ?? refusal(Code.BadRequest, 'no such block'))
            : response;
      return outcome instanceof Promise ? outcome.then(pick) : pick(outcome);
    }
    const { head: kept } = transfer;
    const part = slice(kept, block);
    if (!part) return refusal(Code.BadRequest, 'no such block');
    if (!fits(request, kept, block)) {
      if (transfer.credit < part.payload.length) return blockTooLarge();
      transfer.credit -= part.payload.length;
    }
    if ((block.number + 1) * blockSize(block.exponent) >= kept.payload.length) this.#outgoing.delete(key);
    return part;
  }
}

/**
 * The size exponent for the blocks of a response. It is the wished one when the whole response is within the request's
 * allowance. Otherwise it is the largest with which the response to a request for one block stays within the
 * amplification limit (RFC 9175 section 2.6).
 */
function fittingExponent(request: CoapRequest, response: Reply, wished: number): number {
  const largest = Math.min(wished, largestExponent);
  const overhead = overheadOf(request, response);
  const { allowance } = request;
  if (overhead + response.payload.length <= allowance) return largest;
  const { token, options } = request.message;
  const perBlock = Math.min(allowance, amplification * (4 + token.length + optionBytes(options)));
  let exponent = largest;
  while (exponent > 0 && overhead + blockSize(exponent) > perBlock) exponent--;
  return exponent;
}

/** Bytes of a response's datagram without its payload. An upper estimate: 8 bytes stand for Block2 and Size2. */
const overheadOf = ({ message }: CoapRequest, { options }: Reply): number =>
  4 + message.token.length + 8 + optionBytes(options);

/**
 * Whether a block of this size is within the request's allowance. Blocks of the smallest size always are, since
 * otherwise a peer that has not proved its address could not fetch the body at all.
 */
const fits = (request: CoapRequest, response: Reply, { exponent }: Block): boolean =>
  exponent === 0 ||
  request.allowance === Number.POSITIVE_INFINITY ||
  blockSize(exponent) + overheadOf(request, response) <= request.allowance + blockSlack;

/**
 * Bytes that a block may exceed the allowance by. The block size was chosen for an estimated request, and the actual
 * request for a later block may be a little smaller.
 */
const blockSlack = 16;

const blockTooLarge = (): Reply =>
  refusal(Code.BadRequest, 'block too large for this request, use the block size of the first response');

const optionBytes = (options: readonly CoapOption[]): number =>
  options.reduce((sum, { value }) => sum + value.length + 2, 0);

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
