import { once } from 'node:events';
import { type IncomingMessage, request as requestPlain } from 'node:http';
import { request as requestSecure } from 'node:https';
import type { Socket } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { agentFor } from '../../base/proxied.ts';
import { publicUrl } from '../../base/public-url.ts';
import { FumoRefusal, FumoResult } from '../../mo/fumo.ts';

export interface DownloadRequest {
  readonly url: string;
  /** Number of bytes present from an earlier attempt. */
  readonly from: number;
  /** Position of the last byte that is wanted. When absent, everything to the end of the file is. */
  readonly to?: number | undefined;
  /** Validator (ETag or Last-Modified) of the version that these bytes belong to. */
  readonly validator?: string | undefined;
  /** Size of that version in bytes, if it is known. */
  readonly total?: number | undefined;
  /** PEM of the certificate authorities to trust; the machine's own when absent. */
  readonly ca?: string | undefined;
  /** Bytes that the server must send in 30 seconds of waiting for it. Default: 512. */
  readonly pace?: number | undefined;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Called with the connection of each request. */
  readonly connected?: ((socket: Socket) => void) | undefined;
}

export interface Download {
  /** Position of the first byte of the body: 0 for the whole file, and at most the requested position for the rest. */
  readonly from: number;
  /** Size of the whole file in bytes; undefined when the server does not say. */
  readonly total: number | undefined;
  /** Strong validator of the version sent: ETag, else Last-Modified. Undefined when the server names neither. */
  readonly validator: string | undefined;
  /** Why the bytes of the earlier attempt cannot be used. Undefined when they can, or when there are none. */
  readonly anew?: string | undefined;
  /** Rejects with `unavailable` when the connection breaks, and with `timeout` when the server is silent. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** Maximum number of redirects. */
const redirects = 5;
/** A server must send `bytes` bytes, if the request has no other pace, in `time` milliseconds of waiting for it. */
export const pace = { time: 30_000, bytes: 512 } as const;

/**
 * Requests a file, or the rest of it, over HTTP or HTTPS. The rest is requested by Range with If-Range (RFC 9110 sections
 * 13.1.5 and 14.2). A part is used only if it surely belongs to the bytes that are there: the same strong validator and
 * the same size (section 15.3.7.3), and one range without a gap (section 14.4). Otherwise the file is requested anew.
 * A request with `to` gets exactly these bytes, or an error.
 * @throws {PosternError} `conflict` when the server does not send the range that `to` ends, `malformed` for a URL that is not HTTP or HTTPS, `notFound` for 404 and 410, `forbidden` for
 * 401, 403 and a redirect from HTTPS to HTTP, `timeout` when the server is silent, `unavailable` otherwise
 * @throws {FumoRefusal} 500 for a content coding that was not asked for
 */
export async function download(wanted: DownloadRequest): Promise<Download> {
  const { from, to, validator } = wanted;
  if (to === undefined && (from === 0 || validator === undefined)) return await fromStart(wanted);
  const response = await ask(wanted, {
    range: `bytes=${from}-${to ?? ''}`,
    ...(validator !== undefined && { 'if-range': validator }),
  });
  const { statusCode } = response;
  if (statusCode !== 200 && statusCode !== 206 && statusCode !== 416) throw refused(response);
  const rest =
    statusCode === 206
      ? restOf(response, wanted)
      : statusCode === 200
        ? 'the download server sent the whole file'
        : 'the file ends before that position';
  if (typeof rest !== 'string') return rest;
  if (to === undefined && statusCode === 200) return { ...whole(response, wanted), anew: rest };
  response.destroy();
  if (to !== undefined) throw new PosternError('conflict', rest);
  return { ...(await fromStart(wanted)), anew: rest };
}

async function fromStart(wanted: DownloadRequest): Promise<Download> {
  const response = await ask(wanted, {});
  if (response.statusCode === 200) return whole(response, wanted);
  throw refused(response);
}

function whole(response: IncomingMessage, wanted: DownloadRequest): Download {
  const length = response.headers['content-length'];
  return {
    from: 0,
    total: length === undefined ? undefined : Number(length),
    validator: validatorOf(response),
    body: bodyOf(response, Number.POSITIVE_INFINITY, wanted),
  };
}

/** Reads a 206 response. Returns why it is not what was requested. */
function restOf(response: IncomingMessage, wanted: DownloadRequest): Download | string {
  const { from, to, validator } = wanted;
  const { headers } = response;
  const found =
    validator === undefined
      ? validatorOf(response)
      : validator.startsWith('"')
        ? strongTag(response)
        : headers['last-modified'];
  if (validator !== undefined && found !== validator) return 'the download server has another version';
  const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers['content-range'] ?? '');
  if (!range) return 'the download server sent no single range';
  const [first, last] = [Number(range[1]), Number(range[2])];
  const total = range[3] === '*' ? wanted.total : Number(range[3]);
  const length = last - first + 1;
  if (wanted.total !== undefined && total !== wanted.total)
    return 'the file has another size at the download server';
  const isSound = last >= first && (total === undefined || last < total);
  const isWhole = headers['content-length'] === undefined || Number(headers['content-length']) === length;
  const isWanted = to === undefined ? first <= from && last >= from : first === from && last === to;
  if (!isSound || !isWhole || !isWanted) return 'the download server sent a range that was not requested';
  return { from: first, total, validator: found, body: bodyOf(response, length, wanted) };
}

/** The error for a response that is neither the file nor a part of it. Ends the response. */
function refused(response: IncomingMessage): PosternError {
  response.destroy();
  const { statusCode = 0 } = response;
  const why = `the download server answered ${statusCode}`;
  if (statusCode === 404 || statusCode === 410) return new PosternError('notFound', why);
  if (statusCode === 401 || statusCode === 403) return new PosternError('forbidden', why);
  return new PosternError('unavailable', why);
}

/** Sends the request and follows redirects. */
async function ask(wanted: DownloadRequest, headers: Record<string, string>): Promise<IncomingMessage> {
  let at = wanted.url;
  for (let hop = 0; hop <= redirects; hop++) {
    if (!URL.canParse(at) || !/^https?:$/.test(new URL(at).protocol))
      throw new PosternError('malformed', `not an HTTP or HTTPS URL: ${publicUrl(at).slice(0, 200)}`);
    const response = await askOnce(at, wanted, headers);
    const { location, 'content-encoding': coding = 'identity' } = response.headers;
    if (![301, 302, 303, 307, 308].includes(response.statusCode ?? 0) || location === undefined) {
      if (coding === 'identity') return response;
      response.destroy();
      throw new FumoRefusal(FumoResult.ServerError, 'the download server sent the file in a content coding');
    }
    response.destroy();
    if (!URL.canParse(location, at))
      throw new PosternError('unavailable', 'the download server redirects to no URL');
    const next = new URL(location, at);
    if (at.startsWith('https:') && next.protocol !== 'https:')
      throw new PosternError('forbidden', 'the download server redirects from HTTPS to HTTP');
    at = next.href;
  }
  throw new PosternError('unavailable', `more than ${redirects} redirects`);
}

async function askOnce(
  url: string,
  { ca, clock, signal, connected }: DownloadRequest,
  headers: Record<string, string>,
): Promise<IncomingMessage> {
  const silence = new AbortController();
  const ends = AbortSignal.any([signal, silence.signal]);
  const options = {
    headers: { ...headers, 'accept-encoding': 'identity' },
    signal: ends,
    agent: agentFor(url),
  };
  const request = url.startsWith('https:')
    ? requestSecure(url, { ...options, ...(ca !== undefined && { ca }) })
    : requestPlain(url, options);
  // A connection can also fail when the response has been read or dropped.
  request.on('error', () => {});
  if (connected)
    request.on('socket', (socket) => {
      try {
        connected(socket);
      } catch (thrown) {
        request.destroy(asPosternError(thrown));
      }
    });
  const timer = clock.after(pace.time, () => silence.abort(silent()));
  request.end();
  try {
    // A request that still waits for a proxy does not notice that it is ended.
    const [response] = (await once(request, 'response', { signal: ends })) as [IncomingMessage];
    return response;
  } catch (cause) {
    throw brokenOff(cause, ends);
  } finally {
    timer.cancel();
  }
}

/**
 * The bytes of a response, at most `length`. Only the time that passes while bytes are waited for counts against the
 * server, since the reader may be slow as well.
 */
async function* bodyOf(
  response: IncomingMessage,
  length: number,
  { clock, pace: least = pace.bytes }: DownloadRequest,
): AsyncGenerator<Uint8Array> {
  const chunks = response[Symbol.asyncIterator]();
  let left = length;
  let waited = 0;
  let bytes = 0;
  try {
    for (;;) {
      const begun = clock.now();
      const timer = clock.after(pace.time - waited, () => response.destroy(silent()));
      const { value, done } = await chunks.next().finally(() => timer.cancel());
      if (done) break;
      const chunk = value as Buffer;
      waited += clock.now() - begun;
      bytes += chunk.length;
      if (bytes >= least) [waited, bytes] = [0, 0];
      if (chunk.length > left)
        throw new PosternError('unavailable', 'the download server sent more than it announced');
      left -= chunk.length;
      yield chunk;
    }
  } catch (cause) {
    throw brokenOff(cause, undefined);
  } finally {
    response.destroy();
  }
  if (!response.complete) throw new PosternError('unavailable', 'the connection broke');
}

const silent = () => new PosternError('timeout', 'the download server is silent or too slow');

function brokenOff(cause: unknown, signal: AbortSignal | undefined): PosternError {
  if (cause instanceof PosternError) return cause;
  if (signal?.reason instanceof PosternError) return signal.reason;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new PosternError('unavailable', `the download broke off: ${why}`, { cause });
}

/** The strong validator of the version that a response has. */
const validatorOf = (response: IncomingMessage): string | undefined =>
  strongTag(response) ?? strongDate(response);

/** A strong ETag. A weak one does not guarantee identical bytes (RFC 9110 section 8.8.3.2). */
const strongTag = ({ headers: { etag } }: IncomingMessage): string | undefined =>
  etag?.startsWith('"') ? etag : undefined;

/**
 * Last-Modified, if it is strong: the server's Date is at least a second later, so the file cannot have changed twice in
 * the second of this date (RFC 9110 section 8.8.2.2).
 */
function strongDate({ headers }: IncomingMessage): string | undefined {
  const modified = headers['last-modified'];
  return Date.parse(headers.date ?? '') - Date.parse(modified ?? '') >= 1000 ? modified : undefined;
}
