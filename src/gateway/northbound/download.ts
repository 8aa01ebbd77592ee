import { once } from 'node:events';
import { type IncomingMessage, request as requestPlain } from 'node:http';
import { request as requestSecure } from 'node:https';
import type { Socket } from 'node:net';
import { type Clock, pause } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import { backoff } from '../../base/retry.ts';
import { FumoRefusal } from '../../mo/fumo.ts';

export interface DownloadRequest {
  readonly url: string;
  /** Number of bytes present from an earlier attempt. */
  readonly from: number;
  /** Validator (ETag or Last-Modified) of the version that these bytes belong to. */
  readonly validator?: string | undefined;
  /** PEM of the certificate authorities to trust; the machine's own when absent. */
  readonly ca?: string | undefined;
  readonly signal: AbortSignal;
  /** Called with the connection of each request. */
  readonly connected?: ((socket: Socket) => void) | undefined;
}

export interface Download {
  /** Position of the first byte of the body. 0 when the server sends the whole file. */
  readonly from: number;
  /** Size of the whole file in bytes; undefined when the server does not say. */
  readonly total: number | undefined;
  /** Strong ETag, else Last-Modified date, of the version sent; undefined when the server names neither. */
  readonly validator: string | undefined;
  /** Rejects with `unavailable` when the connection breaks. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** A download that can be resumed. */
export interface ResumedDownload {
  /** Number of bytes stored so far. */
  readonly received: () => number;
  /** Requests the rest and stores it. */
  readonly attempt: () => Promise<void>;
  /** Called when an attempt failed and another one follows. */
  readonly brokeOff: (received: number, reason: string) => void;
  readonly clock: Clock;
  readonly entropy: Entropy;
}

/** Number of attempts in a row without a new byte after which a download fails. */
const attempts = 8;
/** Milliseconds between attempts. */
const retry = { first: 1000, cap: 60_000, jitter: 0.5 } as const;

/**
 * Repeats attempts until the download is complete. Gives up after `attempts` attempts in a row without a new byte, and
 * at once on any error other than `unavailable` and `timeout`.
 * @throws the error of the last attempt, or the reason of the signal
 */
export async function downloadUntilComplete(
  { received, attempt, brokeOff, clock, entropy }: ResumedDownload,
  signal: AbortSignal,
): Promise<void> {
  let delays = backoff(retry, entropy);
  for (let failures = 0; ; ) {
    const before = received();
    try {
      return await attempt();
    } catch (thrown) {
      signal.throwIfAborted();
      const error = asPosternError(thrown);
      const now = received();
      if (now > before) {
        failures = 0;
        delays = backoff(retry, entropy);
      }
      const isFinal = thrown instanceof FumoRefusal || !['unavailable', 'timeout'].includes(error.code);
      if (isFinal || ++failures >= attempts) throw thrown;
      brokeOff(now, error.message);
      await pause(clock, delays.next().value, signal);
    }
  }
}

/** Maximum number of redirects. */
const redirects = 5;
/** Milliseconds that a download server may send nothing. */
const silence = 30_000;

/**
 * Requests a file, or the rest of it, over HTTP or HTTPS (RFC 9110 section 14). The rest is requested by Range with
 * If-Range, so a server sends the whole file when it has changed meanwhile.
 * @throws {PosternError} `malformed` for a URL that is not HTTP or HTTPS, `notFound` for 404 and 410, `forbidden` for
 * 401, 403 and a redirect from HTTPS to HTTP, `timeout` when the server is silent, `unavailable` otherwise
 */
export async function download(wanted: DownloadRequest): Promise<Download> {
  const { from, validator } = wanted;
  const resumes = from > 0 && validator !== undefined;
  const response = await ask(wanted, resumes ? { range: `bytes=${from}-`, 'if-range': validator } : {});
  const { statusCode = 0, headers } = response;
  const found = strongTag(headers.etag) ?? headers['last-modified'];
  const length = headers['content-length'] === undefined ? undefined : Number(headers['content-length']);
  if (statusCode === 206 && resumes) {
    const [, start, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers['content-range'] ?? '') ?? [];
    if (Number(start) !== from) {
      response.destroy();
      throw new PosternError('unavailable', 'the download server sent a range that was not requested');
    }
    return { from, total: total === '*' ? undefined : Number(total), validator, body: bodyOf(response) };
  }
  if (statusCode === 200) return { from: 0, total: length, validator: found, body: bodyOf(response) };
  response.destroy();
  // The file ends at or before `from`: either it is complete already, or it became shorter. A request from the start
  // decides.
  if (statusCode === 416) return await download({ ...wanted, from: 0 });
  const why = `the download server answered ${statusCode}`;
  if (statusCode === 404 || statusCode === 410) throw new PosternError('notFound', why);
  if (statusCode === 401 || statusCode === 403) throw new PosternError('forbidden', why);
  throw new PosternError('unavailable', why);
}

/** Sends the request and follows redirects. */
async function ask(
  { url, ca, signal, connected }: DownloadRequest,
  headers: Record<string, string>,
): Promise<IncomingMessage> {
  let at = url;
  for (let hop = 0; hop <= redirects; hop++) {
    if (!URL.canParse(at) || !/^https?:$/.test(new URL(at).protocol))
      throw new PosternError('malformed', `not an HTTP or HTTPS URL: ${at.slice(0, 200)}`);
    const response = await askOnce(at, { ca, signal, connected }, headers);
    const { location } = response.headers;
    if (![301, 302, 303, 307, 308].includes(response.statusCode ?? 0) || location === undefined)
      return response;
    response.destroy();
    const next = new URL(location, at);
    if (at.startsWith('https:') && next.protocol !== 'https:')
      throw new PosternError('forbidden', 'the download server redirects from HTTPS to HTTP');
    at = next.href;
  }
  throw new PosternError('unavailable', `more than ${redirects} redirects`);
}

async function askOnce(
  url: string,
  { ca, signal, connected }: Pick<DownloadRequest, 'ca' | 'signal' | 'connected'>,
  headers: Record<string, string>,
): Promise<IncomingMessage> {
  const options = { headers: { ...headers, 'accept-encoding': 'identity' }, signal, timeout: silence };
  const request = url.startsWith('https:')
    ? requestSecure(url, { ...options, ...(ca !== undefined && { ca }) })
    : requestPlain(url, options);
  request.on('timeout', () => request.destroy(new PosternError('timeout', 'the download server is silent')));
  if (connected) request.on('socket', connected);
  request.end();
  try {
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    return response;
  } catch (cause) {
    throw brokenOff(cause, signal);
  }
}

async function* bodyOf(response: IncomingMessage): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of response) yield chunk as Buffer;
  } catch (cause) {
    throw brokenOff(cause, undefined);
  }
  if (!response.complete) throw new PosternError('unavailable', 'the connection broke');
}

function brokenOff(cause: unknown, signal: AbortSignal | undefined): PosternError {
  if (cause instanceof PosternError) return cause;
  if (signal?.reason instanceof PosternError) return signal.reason;
  const why = cause instanceof Error ? cause.message : String(cause);
  return new PosternError('unavailable', `the download broke off: ${why}`, { cause });
}

/**
 * Returns a strong ETag. A weak one does not guarantee identical bytes, so it cannot be used with If-Range (section
 * 13.1.5).
 */
const strongTag = (etag: string | undefined): string | undefined =>
  etag?.startsWith('"') ? etag : undefined;
