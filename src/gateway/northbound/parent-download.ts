import { asPosternError, errorOfCoap, PosternError } from '../../base/errors.ts';
import { blockSize, largestExponent, unpackBlock } from '../../wire/coap/blockwise.ts';
import type { CoapAnswer } from '../../wire/coap/blockwise-client.ts';
import { Code, codeText, isSuccess } from '../../wire/coap/codes.ts';
import { Option, optionValue, uintOption } from '../../wire/coap/options.ts';
import { parseCoapUri } from '../../wire/coap/uri.ts';
import { paths } from '../../wire/resources.ts';
import { type Download, type DownloadRequest, type download, pace } from './download.ts';
import type { ParentLink } from './parent-link.ts';

/** One block of a file at the parent gateway. */
interface Piece {
  /** Position in the file. */
  readonly start: number;
  readonly bytes: Uint8Array;
  readonly isLast: boolean;
  /** Size exponent of the block. */
  readonly exponent: number;
  /** ETag of the file in hexadecimal, with the quotes of HTTP. */
  readonly validator: string | undefined;
  /** Size of the file, when the block says it. */
  readonly total: number | undefined;
}

/** Gets the block that has the byte at a position. Undefined when the file ends before it. */
type Ask = (at: number, exponent: number) => Promise<Piece | undefined>;

/**
 * Downloads of a child gateway: images of its parent over CoAP, from a URI that the parent made for it (`coaps://…/img/fw-2?v=…&t=…`);
 * all else as `other` downloads it. The parent is asked at the address and with the security by which it is the parent here,
 * whatever the URI says of them: a parent behind a NAT does not know its address. Blocks are requested one after the other (RFC 7959
 * section 2.4).
 */
export const downloadFromParent =
  (parent: Pick<ParentLink, 'block'>, other: typeof download): typeof download =>
  async (wanted) =>
    /^coaps?:/i.test(wanted.url) ? await fromParent(parent, wanted) : await other(wanted);

/**
 * As `download`.
 * @throws {PosternError} `conflict` when the parent does not send the range that `to` ends, `malformed` for a path that is none of an
 * image, `timeout` when the parent is silent or too slow, `notFound` and others as the parent answers, `unavailable` otherwise
 */
async function fromParent(parent: Pick<ParentLink, 'block'>, wanted: DownloadRequest): Promise<Download> {
  const { url, from, to, signal } = wanted;
  const isRange = to !== undefined;
  const validator = isRange || from > 0 ? wanted.validator : undefined;
  const { path, query = '' } = parseCoapUri(url);
  if (`/${path[0]}` !== paths.images)
    throw new PosternError('malformed', 'over CoAP, a gateway downloads only the images of its parent');
  const ask: Ask = async (at, exponent) => {
    const block = { number: Math.floor(at / blockSize(exponent)), more: false, exponent };
    const answer = await parent.block(path, query.split('&'), block, signal).catch((thrown) => {
      const { code, message } = asPosternError(thrown);
      // Of the requests that one peer may have, some are on their way to the parent.
      throw code === 'full' ? new PosternError('unavailable', message, { cause: thrown }) : thrown;
    });
    return readPiece(answer, block.number * blockSize(exponent), exponent);
  };
  const begin = isRange || validator !== undefined ? from : 0;
  const first = await ask(begin, largestExponent);
  if (first && (validator === undefined || first.validator === validator)) {
    const body = bodyOf(first, begin, ask, wanted);
    return { from: begin, total: first.total ?? wanted.total, validator: first.validator, body };
  }
  const anew = first ? 'the parent gateway has another version' : 'the file ends before that position';
  if (isRange) throw new PosternError('conflict', anew);
  return { ...(await fromParent(parent, { ...wanted, validator: undefined, total: undefined })), anew };
}

async function* bodyOf(
  first: Piece,
  from: number,
  ask: Ask,
  { to = Number.POSITIVE_INFINITY, pace: least = pace.bytes, clock }: DownloadRequest,
): AsyncGenerator<Uint8Array> {
  let [waited, received] = [0, 0];
  for (let { start, bytes, isLast, exponent } = first; ; ) {
    const end = start + bytes.length;
    // The parent may have smaller blocks than the one that was requested.
    if (end > from) yield bytes.subarray(Math.max(0, from - start), to + 1 - start);
    if (end > to || (isLast && to === Number.POSITIVE_INFINITY)) return;
    const begun = clock.now();
    const next = isLast ? undefined : await ask(end, exponent);
    if (!next) throw new PosternError('conflict', 'the file ends before that position');
    if (next.validator !== first.validator)
      throw new PosternError('unavailable', 'the parent gateway has another version now');
    waited += clock.now() - begun;
    received += next.bytes.length;
    if (received >= least) [waited, received] = [0, 0];
    else if (waited > pace.time) throw new PosternError('timeout', 'the parent gateway is too slow');
    ({ start, bytes, isLast, exponent } = next);
  }
}

/** Reads the answer to a request for the block at a position. Undefined when there is none. */
function readPiece({ code, options, payload }: CoapAnswer, at: number, wished: number): Piece | undefined {
  if (code === Code.BadRequest && at > 0) return undefined;
  if (!isSuccess(code)) {
    const why = `the parent gateway answered ${codeText(code)}`;
    // It does not know this gateway yet: it has started anew.
    throw new PosternError(code === Code.Unauthorized ? 'unavailable' : errorOfCoap(codeText(code)), why);
  }
  const { number, more, exponent } = unpackBlock(uintOption(options, Option.Block2)) ?? noBlock;
  const size = blockSize(exponent);
  const isSound = more ? payload.length === size : payload.length <= size;
  if (exponent > wished || number * size !== at || !isSound)
    throw new PosternError('unavailable', 'the parent gateway sent another block than the one requested');
  const tag = optionValue(options, Option.ETag);
  return {
    start: at,
    bytes: payload,
    isLast: !more,
    exponent,
    validator: tag && `"${Buffer.from(tag).toString('hex')}"`,
    total: more ? uintOption(options, Option.Size2) : at + payload.length,
  };
}

const noBlock = { number: -1, more: false, exponent: 0 } as const;
