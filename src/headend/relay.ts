import { BoundedMap } from '../base/bounded-map.ts';
import { PosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { readBounded } from '../base/read-bounded.ts';
import { hmacHeader } from '../dm/hmac-header.ts';
import { decodeMessage, isSupported } from '../wire/syncml/codec.ts';
import { messageLimits } from '../wire/syncml/elements.ts';
import type { DownPackage, UpPackage } from './downlink.ts';

export interface RelayParts {
  /** Where the DM server takes packages. */
  readonly url: string;
  /** Milliseconds that it may take to answer one. */
  readonly timeout: number;
  readonly events: Events;
}

/** Sessions whose RespURI is remembered; the one heard longest ago is forgotten first. */
const sessionBound = 65_536;

/**
 * Hands packages of devices to a DM server that speaks HTTP and knows nothing of MQTT, and its answers back, both
 * untouched. Where such a server wants the next message of a session elsewhere, by RespURI, it gets it there: the device,
 * at the far end of a tunnel, could not do it.
 */
export class Relay {
  readonly #parts: RelayParts;
  readonly #origin: string;
  readonly #next = new BoundedMap<string, string>(sessionBound);

  constructor(parts: RelayParts) {
    this.#parts = parts;
    this.#origin = new URL(parts.url).origin;
  }

  /** @throws {PosternError} `timeout`, `unavailable`, `tooLarge`, or what the server's HTTP status says */
  async forward({ gateway, envelope }: UpPackage): Promise<DownPackage> {
    const { url, timeout, events } = this.#parts;
    const { device = '', contentType = '', body = new Uint8Array(), headers = {} } = envelope;
    const session = `${gateway} ${device} ${sessionOf(body, contentType)}`;
    const hmac = headers[hmacHeader];
    let response: Response;
    try {
      response = await fetch(this.#next.get(session) ?? url, {
        method: 'POST',
        headers: { 'content-type': contentType, ...(hmac !== undefined && { [hmacHeader]: hmac }) },
        body: Buffer.from(body),
        // A redirection could lead the package anywhere.
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
    this.#heedRespUri(session, answer, type);
    events.emit('relay.forwarded', { device, gateway, up: body.length, down: answer.length });
    const seal = response.headers.get(hmacHeader);
    return { contentType: type, body: answer, ...(seal !== null && { headers: { [hmacHeader]: seal } }) };
  }

  #heedRespUri(session: string, body: Uint8Array, contentType: string): void {
    const wanted = readHeader(body, contentType)?.respUri;
    if (wanted === undefined) return;
    const { url, events } = this.#parts;
    const next = URL.canParse(wanted, url) ? new URL(wanted, url) : undefined;
    // A server has no business elsewhere with packages of its devices.
    if (next?.origin === this.#origin) this.#next.set(session, next.href);
    else events.emit('relay.foreign-uri', { origin: next?.origin ?? 'none' });
  }
}

function readHeader(body: Uint8Array, contentType: string) {
  const [mediaType = ''] = contentType.split(';');
  try {
    return isSupported(mediaType.trim()) ? decodeMessage(body, mediaType.trim()).header : undefined;
  } catch {
    // What cannot be read is forwarded all the same: it may be meant for the other end alone.
    return undefined;
  }
}

const sessionOf = (body: Uint8Array, contentType: string): string =>
  readHeader(body, contentType)?.sessionId ?? '';

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
