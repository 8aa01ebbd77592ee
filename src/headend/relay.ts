import { BoundedMap } from '../base/bounded-map.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { readBounded } from '../base/read-bounded.ts';
import { hmacHeader } from '../dm/hmac-header.ts';
import { decodeMessage, isSupported } from '../wire/syncml/codec.ts';
import { messageLimits } from '../wire/syncml/elements.ts';
import type { DownPackage, UpPackage } from './downlink.ts';

export interface RelayParts {
  /** HTTP or HTTPS URL to which the DM server's packages are posted. */
  readonly url: string;
  /** Milliseconds that the DM server may take to answer a package. */
  readonly timeout: number;
  /** Sessions whose RespURI is remembered; `sessionLimit` if absent. */
  readonly sessions?: number;
  readonly events: Events;
}

/** Sessions whose RespURI is remembered. The entry that was set longest ago is dropped. */
export const sessionLimit = 16_384;

/**
 * Passes packages of devices to a DM server that supports only HTTP, and passes the answers back. Neither is changed.
 * A server can direct the next message of a session to another URL by RespURI. The device cannot follow RespURI
 * through the tunnel, so the relay does it.
 */
export class Relay {
  readonly #parts: RelayParts;
  readonly #origin: string;
  readonly #nextUrls: BoundedMap<string, string>;

  constructor(parts: RelayParts) {
    this.#parts = parts;
    this.#origin = new URL(parts.url).origin;
    this.#nextUrls = new BoundedMap(parts.sessions ?? sessionLimit);
  }

  /**
   * Posts a package to the DM server and returns the server's answer.
   * @throws {PosternError} `timeout`, `unavailable`, `tooLarge` for the answer, or the code that fits the server's
   * HTTP status
   */
  async forward({ gateway, envelope }: UpPackage): Promise<DownPackage> {
    const { url, timeout, events } = this.#parts;
    const { device = '', contentType = '', body = new Uint8Array(), headers = {} } = envelope;
    const { sessionId = '', msgId } = readHeader(body, contentType) ?? {};
    const session = `${gateway} ${envelope.peer ?? ''} ${device} ${sessionId}`;
    // A device may use one session ID for ever. Its first message belongs to no session that has a URI of its own.
    if (msgId === 1) this.#nextUrls.delete(session);
    const hmac = headers[hmacHeader];
    let response: Response;
    try {
      response = await fetch(this.#nextUrls.get(session) ?? url, {
        method: 'POST',
        headers: { 'content-type': contentType, ...(hmac !== undefined && { [hmacHeader]: hmac }) },
        body: Buffer.from(body),
        // A redirection could send the package to any host.
        redirect: 'error',
        signal: AbortSignal.timeout(timeout),
      });
    } catch (cause) {
      const late = cause instanceof DOMException && cause.name === 'TimeoutError';
      throw new PosternError(
        late ? 'timeout' : 'unavailable',
        late ? `the DM server did not answer in ${timeout} ms` : 'the DM server cannot be reached',
        { cause },
      );
    }
    const answer = response.body
      ? await readBounded(response.body, messageLimits.bytes, 'an answer')
      : Buffer.alloc(0);
    if (!response.ok) throw refusalOf(response.status);
    const type = response.headers.get('content-type') ?? contentType;
    this.#followRespUri(session, answer, type);
    events.emit('relay.forwarded', { device, gateway, up: body.length, down: answer.length });
    const seal = response.headers.get(hmacHeader);
    return { contentType: type, body: answer, ...(seal !== null && { headers: { [hmacHeader]: seal } }) };
  }

  /**
   * Remembers the RespURI of an answer for the session's next package. Only URLs of the configured server are
   * accepted.
   */
  #followRespUri(session: string, body: Uint8Array, contentType: string): void {
    const wanted = readHeader(body, contentType)?.respUri;
    if (wanted === undefined) return;
    const { url, events } = this.#parts;
    const next = URL.canParse(wanted, url) ? new URL(wanted, url) : undefined;
    if (next?.origin === this.#origin) this.#nextUrls.set(session, next.href);
    else events.emit('relay.foreign-uri', { origin: next?.origin ?? 'none' });
  }
}

/** The SyncHdr of a message. Undefined when the message cannot be decoded. */
function readHeader(body: Uint8Array, contentType: string) {
  const [mediaType = ''] = contentType.split(';');
  try {
    return isSupported(mediaType.trim()) ? decodeMessage(body, mediaType.trim()).header : undefined;
  } catch {
    // Such a package is forwarded all the same: the other end may be able to decode it.
    return undefined;
  }
}

/** The error that fits an HTTP status other than 2xx. */
function refusalOf(status: number): PosternError {
  const why = `the DM server answered ${status}`;
  switch (status) {
    case 401:
      return new PosternError('unauthorized', why);
    case 403:
      return new PosternError('forbidden', why);
    case 404:
      return new PosternError('notFound', why);
    case 413:
      return new PosternError('tooLarge', why);
    case 415:
      return new PosternError('unsupportedFormat', why);
    case 429:
      return new PosternError('lockedOut', why);
    case 504:
      return new PosternError('timeout', why);
    default:
      return new PosternError('unavailable', why);
  }
}
