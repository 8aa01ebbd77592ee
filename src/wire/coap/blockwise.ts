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
  readonly number: number;
  readonly more: boolean;
  /** Size exponent: a block has 2^(exponent + 4) bytes. */
  readonly exponent: number;
}

export const largestExponent = 6;
export const blockSize = (exponent: number): number => 1 << (exponent + 4);
export const packBlock = ({ number, more, exponent }: Block): number =>
  number * 16 + (more ? 8 : 0) + exponent;

export function unpackBlock(value: number | undefined): Block | undefined {
  if (value === undefined) return undefined;
  return { number: Math.floor(value / 16), more: (value & 8) !== 0, exponent: value & 7 };
}

export interface BlockwiseLimits {
  /** Bytes of one request body. */
  readonly bodyBytes: number;
  /** Request bodies and response bodies in transfer at one time, for all and for one peer. */
  readonly transfers: number;
  readonly transfersPerPeer: number;
  /** Bytes of all bodies in transfer. */
  readonly totalBytes: number;
  /** Milliseconds that a transfer may lie still. */
  readonly idle: number;
}

export const blockwiseDefaults: BlockwiseLimits = {
  bodyBytes: 64 * 1024,
  transfers: 1024,
  transfersPerPeer: 4,
  totalBytes: 8 * 1024 * 1024,
  idle: 60_000,
};

interface Transfer {
  readonly peer: string;
  readonly chunks: Uint8Array[];
  bytes: number;
  expires: Monotonic;
  /** Of a response in transfer: all of it. */
  head?: Reply;
  /** Of a response in transfer: bytes that may go out in blocks larger than their own requests allow. */
  credit: number;
}

/** Transfers under way of one direction, dropped when they lie still, and the oldest first at the bounds. */
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

  /** False when the bounds leave no room. */
  begin(key: string, peer: string): Transfer | undefined {
    this.delete(key);
    this.#expire();
    const count = this.#perPeer.get(peer) ?? 0;
    if (count >= this.#limits.transfersPerPeer) return undefined;
    const transfer: Transfer = { peer, chunks: [], bytes: 0, expires: this.#deadline(), credit: 0 };
    this.#perPeer.set(peer, count + 1);
    this.#entries.set(key, transfer);
    return transfer;
  }

  append(transfer: Transfer, chunk: Uint8Array): boolean {
    if (this.#bytes + chunk.length > this.#limits.totalBytes) return false;
    transfer.chunks.push(chunk);
    transfer.bytes += chunk.length;
    transfer.expires = this.#deadline();
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
    for (const [key, { expires }] of this.#entries.entries()) if (expires <= now) this.delete(key);
  }

  #forgotten(transfer: Transfer): void {
    this.#bytes -= transfer.bytes;
    const left = (this.#perPeer.get(transfer.peer) ?? 1) - 1;
    if (left > 0) this.#perPeer.set(transfer.peer, left);
    else this.#perPeer.delete(transfer.peer);
  }
}

/** Options that tell two transfers of one peer apart: all but the block options (RFC 7959 section 2.5, RFC 9175 section 3.3). */
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
 * Block-wise transfer of both directions around a handler that sees whole bodies only (RFC 7959). A body is handed on
 * when its last block is there, or not at all.
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

  get footprint() {
    return { incoming: this.#incoming.size, outgoing: this.#outgoing.size };
  }

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
      return refusal(Code.BadRequest, 'block of another size than it says');
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
      // What cannot be kept can still be made again, if the request is safe to repeat.
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
          ? tooMuch()
          : response && !isError(response)
            ? (slice(response, block) ?? refusal(Code.BadRequest, 'no such block'))
            : response;
      return outcome instanceof Promise ? outcome.then(pick) : pick(outcome);
    }
    const { head: kept } = transfer;
    const part = slice(kept, block);
    if (!part) return refusal(Code.BadRequest, 'no such block');
    if (!fits(request, kept, block)) {
      if (transfer.credit < part.payload.length) return tooMuch();
      transfer.credit -= part.payload.length;
    }
    if ((block.number + 1) * blockSize(block.exponent) >= kept.payload.length) this.#outgoing.delete(key);
    return part;
  }
}

/** The block size for a response: as wished if all of it may go out at once, else what a request for one block allows. */
function fittingExponent(request: CoapRequest, response: Reply, wished: number): number {
  const largest = Math.min(wished, largestExponent);
  const overhead = overheadOf(request, response);
  if (overhead + response.payload.length <= request.allowance) return largest;
  const { token, options } = request.message;
  const perBlock = Math.min(request.allowance, amplification * (4 + token.length + optionBytes(options)));
  let exponent = largest;
  while (exponent > 0 && overhead + blockSize(exponent) > perBlock) exponent--;
  return exponent;
}

/** Bytes of a response's datagram without its payload, rather too many than too few. */
const overheadOf = ({ message }: CoapRequest, { options }: Reply): number =>
  4 + message.token.length + 8 + optionBytes(options);

/** Whether one block of a response may answer this request. The smallest blocks always may, else there were no way. */
const fits = (request: CoapRequest, response: Reply, { exponent }: Block): boolean =>
  exponent === 0 ||
  request.allowance === Number.POSITIVE_INFINITY ||
  blockSize(exponent) + overheadOf(request, response) <= request.allowance + blockSlack;

/** A request for a later block may be a little smaller than the one that the size was chosen for. */
const blockSlack = 16;

const tooMuch = (): Reply => refusal(Code.BadRequest, 'go on with the block size of the first block');

const optionBytes = (options: readonly CoapOption[]): number =>
  options.reduce((sum, { value }) => sum + value.length + 2, 0);

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
