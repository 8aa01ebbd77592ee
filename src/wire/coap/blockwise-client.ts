import type { Entropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import type { Block } from './blockwise.ts';
import { blockSize, largestExponent, packBlock, unpackBlock } from './blockwise.ts';
import type { CoapMessage, CoapOption } from './codec.ts';
import { Code, isSuccess } from './codes.ts';
import type { CoapEndpoint } from './endpoint.ts';
import { Option, opaque, optionValue, sorted, uint, uintOption, uriOptions } from './options.ts';

export interface CoapCall {
  readonly method: number;
  readonly path: readonly string[];
  readonly query?: readonly string[];
  readonly contentFormat?: number;
  readonly accept?: number;
  readonly options?: readonly CoapOption[];
  readonly payload?: Uint8Array;
  /** Milliseconds for each exchange of the call. */
  readonly timeout: number;
  readonly signal?: AbortSignal | undefined;
}

export interface CoapAnswer {
  readonly code: number;
  readonly options: readonly CoapOption[];
  readonly payload: Uint8Array;
}

/** Bytes of a response body that is fetched block by block. */
const bodyLimit = 1024 * 1024;

const blockOf = (message: CoapMessage, which: typeof Option.Block1): Block | undefined =>
  unpackBlock(uintOption(message.options, which));

/**
 * One request with bodies of any size both ways: Block1 up, Block2 down (RFC 7959), a Request-Tag when the body goes up
 * in blocks (RFC 9175).
 * @throws {PosternError} `timeout`, `unavailable`, `full`, `tooLarge`, or `malformed` when the blocks do not fit together
 */
export async function call(
  endpoint: CoapEndpoint,
  entropy: Entropy,
  address: string,
  port: number,
  request: CoapCall,
): Promise<CoapAnswer> {
  const { payload = new Uint8Array(), timeout, signal } = request;
  const head = [...uriOptions(request.path, request.query), ...(request.options ?? [])];
  if (request.contentFormat !== undefined) head.push(uint(Option.ContentFormat, request.contentFormat));
  if (request.accept !== undefined) head.push(uint(Option.Accept, request.accept));
  const send = (extra: CoapOption[], body: Uint8Array) =>
    endpoint.request(address, port, {
      code: request.method,
      options: sorted([...head, ...extra]),
      payload: body,
      timeout,
      ...(signal && { signal }),
    });

  if (payload.length <= blockSize(largestExponent)) return await collect(send, await send([], payload));
  head.push(opaque(Option.RequestTag, entropy.bytes(4)));
  return await collect(send, await upload(send, payload));
}

type Send = (extra: CoapOption[], body: Uint8Array) => Promise<CoapMessage>;

async function upload(send: Send, payload: Uint8Array): Promise<CoapMessage> {
  let exponent = largestExponent;
  let at = 0;
  for (;;) {
    const size = blockSize(exponent);
    const more = at + size < payload.length;
    const options = [uint(Option.Block1, packBlock({ number: at / size, more, exponent }))];
    if (at === 0) options.push(uint(Option.Size1, payload.length));
    const answer = await send(options, payload.subarray(at, at + size));
    const echoed = blockOf(answer, Option.Block1);
    // The server wants smaller blocks, right away or from the start (RFC 7959 section 2.9.3).
    if (echoed && echoed.exponent < exponent) {
      exponent = echoed.exponent;
      if (answer.code === Code.RequestEntityTooLarge) {
        at = 0;
        continue;
      }
    }
    if (!more || answer.code !== Code.Continue) return answer;
    at += size;
  }
}

async function collect(send: Send, first: CoapMessage): Promise<CoapAnswer> {
  const start = blockOf(first, Option.Block2);
  if (!start?.more || !isSuccess(first.code)) return first;
  const etag = optionValue(first.options, Option.ETag);
  const chunks = [first.payload];
  let bytes = first.payload.length;
  for (let block: Block = start; block.more; ) {
    const number = bytes / blockSize(block.exponent);
    const next = await send(
      [uint(Option.Block2, packBlock({ number, more: false, exponent: block.exponent }))],
      new Uint8Array(),
    );
    const got = blockOf(next, Option.Block2);
    if (!isSuccess(next.code)) return next;
    if (got?.number !== number || got.exponent !== block.exponent)
      throw new PosternError('malformed', 'the blocks of a response do not fit together');
    const sameBody = Buffer.compare(
      etag ?? new Uint8Array(),
      optionValue(next.options, Option.ETag) ?? new Uint8Array(),
    );
    if (sameBody !== 0) throw new PosternError('conflict', 'the response changed while it was fetched');
    bytes += next.payload.length;
    if (bytes > bodyLimit) throw new PosternError('tooLarge', `response of more than ${bodyLimit} bytes`);
    chunks.push(next.payload);
    block = got;
  }
  return { code: first.code, options: first.options, payload: Buffer.concat(chunks) };
}
