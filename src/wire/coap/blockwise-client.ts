import { plus } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Block } from './blockwise.ts';
import { blockSize, exponentFor, largestExponent, packBlock, unpackBlock } from './blockwise.ts';
import type { CoapMessage, CoapOption } from './codec.ts';
import { Code, isSuccess } from './codes.ts';
import type { CoapEndpoint } from './endpoint.ts';
import type { Observation } from './observation.ts';
import { Option, opaque, optionValue, sorted, uint, uintOption, uriOptions } from './options.ts';
import { encodedLength } from './rule-of-three.ts';

/** A body that is read while it is sent. */
export interface CallBody {
  /** Bytes. */
  readonly length: number;
  /** The bytes from `from` up to `to`, or up to the end. */
  subarray(from: number, to: number): Uint8Array;
}

/** One request with a body of any size. */
export interface CoapCall {
  /** Request code, such as `Code.GET`. */
  readonly method: number;
  /** Uri-Path segments, not percent-encoded. */
  readonly path: readonly string[];
  /** Uri-Query parts, `name=value` each. */
  readonly query?: readonly string[];
  /** Content-Format number of the payload. */
  readonly contentFormat?: number;
  /** Content-Format number that the response should have. */
  readonly accept?: number;
  /** Further options, sent with every block of the call. With a Block2 among them, the response is that block alone. */
  readonly options?: readonly CoapOption[];
  readonly payload?: CallBody;
  /** Milliseconds that each exchange may take. A call with several blocks has several exchanges. */
  readonly timeout: number;
  /** Cancels the call. */
  readonly signal?: AbortSignal | undefined;
  /** See `OutgoingRequest`. */
  readonly isOwed?: boolean | undefined;
  /** See `OutgoingRequest`. */
  readonly party?: string | undefined;
  /** See `OutgoingRequest`. */
  readonly token?: Uint8Array;
  /** Asks the peer to notify (RFC 7641). It then gets the response too, with its whole body. */
  readonly observation?: Observation;
}

/** The response of a call. `payload` is the whole body; `code` and `options` are those of its first block. */
export interface CoapAnswer {
  readonly code: number;
  readonly options: readonly CoapOption[];
  readonly payload: Uint8Array;
}

/** Most bytes of a datagram besides the options of a call and its block: header, token, payload marker, Block1, Size1, Request-Tag. */
const mostOther = 4 + 8 + 1 + 5 + 5 + 6;
/** Most bytes of a response body that is fetched block by block. */
const bodyLimit = 1024 * 1024;
/** The same, of a notification. */
const notificationLimit = 64 * 1024;
/** How often a response is fetched from its beginning that changes while it is fetched (RFC 7959 section 2.4). */
const beginnings = 3;
/** Milliseconds that all exchanges of a call may take together. A slow peer ends sooner by the timeout of one exchange. */
const callLimit = 30 * 60_000;

const blockOf = (message: CoapMessage, which: typeof Option.Block1): Block | undefined =>
  unpackBlock(uintOption(message.options, which));

/**
 * Sends one request and returns its response. The body of the request goes out in blocks by Block1, the body of the
 * response comes in by Block2 (RFC 7959). A request body of several blocks also gets a Request-Tag (RFC 9175).
 * Resolves with the response whatever its code, so the caller checks `code`.
 * @throws {PosternError} `timeout`, also after half an hour in all, `unavailable` or `full` from the endpoint; `tooLarge` for a response body of more
 *   than 1 MiB; `malformed` when a response has a wrong block number, block size or critical option; `conflict` when
 *   the ETag changes between two blocks of the response, again and again
 */
export async function call(
  endpoint: CoapEndpoint,
  entropy: Entropy,
  address: string,
  port: number,
  request: CoapCall,
): Promise<CoapAnswer> {
  const { payload = new Uint8Array(), timeout, signal, isOwed, party, token, observation } = request;
  const head = [...uriOptions(request.path, request.query), ...(request.options ?? [])];
  if (request.contentFormat !== undefined) head.push(uint(Option.ContentFormat, request.contentFormat));
  if (request.accept !== undefined) head.push(uint(Option.Accept, request.accept));
  const sender = (own: readonly CoapOption[], more: Pick<CoapCall, 'token' | 'observation'>): Send => {
    const deadline = plus(endpoint.now, callLimit);
    return async (extra, body) => {
      const left = deadline - endpoint.now;
      if (left <= 0) throw new PosternError('timeout', `${address} does not come to an end`);
      return await endpoint.request(address, port, {
        code: request.method,
        options: sorted([...head, ...own, ...extra]),
        payload: body,
        timeout: Math.min(timeout, left),
        ...(signal && { signal }),
        ...(isOwed && { isOwed }),
        ...(party !== undefined && { party }),
        ...more,
      });
    };
  };
  const overhead = encodedLength(sorted(head)) + mostOther;
  const exponent = exponentFor(endpoint.remoteOf(address, port), overhead, payload.length, largestExponent);
  const isWhole = payload.length <= blockSize(exponent);
  const whole = isWhole ? payload.subarray(0, payload.length) : new Uint8Array();
  // A FETCH for a later block is one only with its body (RFC 8132 section 2).
  const repeatsBody = request.method === Code.FETCH && isWhole;
  const isRepeatable = repeatsBody || request.method === Code.GET;
  const rest = async (first: CoapMessage, limit?: number) => {
    const send = sender([], {});
    const sendMore = (extra: CoapOption[]) => send(extra, repeatsBody ? whole : new Uint8Array());
    for (let begun = 1, start = first; ; begun++)
      try {
        return await collect(sendMore, start, limit);
      } catch (thrown) {
        if (!isRepeatable || begun === beginnings || asPosternError(thrown).code !== 'conflict') throw thrown;
        start = await sendMore([]);
      }
  };
  // The later blocks are requested without Observe (RFC 7959 section 2.6).
  if (observation) observation.rest = (first) => rest(first, notificationLimit);
  const begin = observation
    ? sender([uint(Option.Observe, 0)], { observation })
    : sender([], token ? { token } : {});
  if (!isWhole) head.push(opaque(Option.RequestTag, entropy.bytes(4)));
  const first = isWhole ? await begin([], whole) : await upload(begin, payload, exponent);
  // What an observation has taken, it collects itself.
  const isOneBlock = head.some(({ number }) => number === Option.Block2.number);
  return observation?.isActive || isOneBlock ? first : await rest(first);
}

type Send = (extra: CoapOption[], body: Uint8Array) => Promise<CoapMessage>;

async function upload(send: Send, payload: CallBody, largest: number): Promise<CoapMessage> {
  let exponent = largest;
  let at = 0;
  for (;;) {
    const size = blockSize(exponent);
    const more = at + size < payload.length;
    const options = [uint(Option.Block1, packBlock({ number: at / size, more, exponent }))];
    if (at === 0) options.push(uint(Option.Size1, payload.length));
    const answer = await send(options, payload.subarray(at, at + size));
    const echoed = blockOf(answer, Option.Block1);
    // The server asks for smaller blocks (RFC 7959 section 2.9.3). After 4.13 the upload starts again from block 0,
    // after any other code it continues with the next block.
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

/**
 * Fetches the rest of a response whose first block is there.
 * @param send sends the request again, with a Block2 option
 * @param limit most bytes of the body
 * @throws {PosternError} as `call`
 */
export async function collect(send: Send, first: CoapMessage, limit = bodyLimit): Promise<CoapAnswer> {
  const start = blockOf(first, Option.Block2);
  if (!start?.more || !isSuccess(first.code)) return first;
  const { number, exponent } = start;
  if (number !== 0 || exponent > largestExponent || first.payload.length !== blockSize(exponent))
    throw new PosternError('malformed', 'the response does not begin with a whole first block');
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
    // A server may answer with a smaller block than was requested (RFC 7959 section 2.4).
    if (!got || got.exponent > block.exponent || got.number * blockSize(got.exponent) !== bytes)
      throw new PosternError('malformed', 'the response has another block than the one requested');
    const sameBody = Buffer.compare(
      etag ?? new Uint8Array(),
      optionValue(next.options, Option.ETag) ?? new Uint8Array(),
    );
    if (sameBody !== 0) throw new PosternError('conflict', 'the response changed while it was fetched');
    if (got.more && next.payload.length !== blockSize(got.exponent))
      throw new PosternError('malformed', 'a block of the response is not whole');
    bytes += next.payload.length;
    if (bytes > limit) throw new PosternError('tooLarge', `response of more than ${limit} bytes`);
    chunks.push(next.payload);
    block = got;
  }
  return { code: first.code, options: first.options, payload: Buffer.concat(chunks) };
}
