import type { IncomingMessage, ObserveWriteStream, OutgoingMessage } from 'coap';
import { asPosternError } from '../base/errors.ts';
import { ContentFormat } from '../wire/coap/content-formats.ts';
import { type Link, parseLinks } from '../wire/coap/link-format.ts';
import { writeUint } from '../wire/coap/options.ts';
import { coapBase, parseCoapUri } from '../wire/coap/uri.ts';
import type { Block2Body } from './block2-body.ts';

/** A request that the device sends. */
export interface StackRequest {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** `coap://host:port`. */
  readonly base: string;
  /** With its first slash. */
  readonly path: string;
  /** Without the question mark; parts are separated by `&`. */
  readonly query?: string;
  /** Content-Format number of the payload. */
  readonly contentFormat?: number;
  /** Content-Format number that the response should have. */
  readonly accept?: number;
  /** Further options by number, for which the `coap` package has no names. */
  readonly options?: Readonly<Record<number, Uint8Array>>;
  readonly payload?: Uint8Array;
  /** Milliseconds for the whole request, all blocks included. */
  readonly timeout: number;
  /** Value of Block2: the block to begin with. The `coap` package requests the blocks after it. */
  readonly block2?: Uint8Array;
  /** Where the body of the response is collected. By default a body of its own. */
  readonly body?: Block2Body;
}

/** A response that the device gets. */
export interface StackResponse {
  /** Such as `2.04`. */
  readonly code: string;
  readonly payload: Uint8Array;
  /** Content-Format number. */
  readonly contentFormat: number | undefined;
  /** Location-Path, such as `/rd/x`. Empty when there is none. */
  readonly location: string;
  /** Max-Age in seconds. In a 5.03 it says when to try again (RFC 7252 section 5.9.3.4). */
  readonly maxAge: number | undefined;
  /** Value of the first option with this number. */
  option(number: number): Uint8Array | undefined;
}

/** A gateway that was found: its address and its resources. */
export interface Discovered {
  /** `coap://host:port`; a link-local host has its zone. */
  readonly base: string;
  /** `coaps://host:port` of the same gateway, where its links name it. */
  readonly secure?: string;
  /** With paths as targets. */
  readonly links: readonly Link[];
  /** A challenge of its bootstrap server that came with the links: an Echo (RFC 9175). */
  readonly challenge?: Uint8Array | undefined;
}

/** A request that the device gets. */
export interface StackIncoming {
  readonly method: string;
  /** Path and query, such as `/dmn?id=…`. */
  readonly url: string;
  readonly payload: Uint8Array;
  /** It came over DTLS or OSCORE. */
  readonly isProtected: boolean;
  /** Content-Format number. */
  readonly contentFormat: number | undefined;
  /** Content-Format number. */
  readonly accept: number | undefined;
  /** The sender and the token of its request: the name of an observation. */
  readonly peer: string;
  /** Present when the sender wants to observe (RFC 7641). It is told the answer in any case. */
  readonly observer?: StackObserver;
  /** The sender does not want to observe any more. */
  readonly isCancelled: boolean;
}

/** Who observes a resource of the device. */
export interface StackObserver {
  readonly key: string;
  /** Sends a notification, in blocks where it is long. */
  notify(answer: StackAnswer): void;
  /** Calls `listener` when the observer has rejected a notification, or does not acknowledge any. */
  onEnd(listener: () => void): void;
  /** Sends nothing any more. */
  end(): void;
}

/** A response that the device sends. */
export interface StackAnswer {
  /** Such as `2.04`. */
  readonly code: string;
  readonly payload?: Uint8Array;
  /** Content-Format number. */
  readonly contentFormat?: number;
}

/** Handles a request. An error that it throws becomes a response with the error's CoAP code. */
export type Answering = (request: StackIncoming) => StackAnswer | Promise<StackAnswer>;

/**
 * A gateway with these links. A gateway that serves little over plain CoAP gives the rest as coaps URIs. Such a URI has no zone; its
 * host is the base's when only the zone is missing.
 */
export function discoveredAt(base: string, links: readonly Link[], challenge?: Uint8Array): Discovered {
  const origin = /^coaps:\/\/[^/]+/;
  const named = origin.test(base) ? base : links.flatMap(({ target }) => origin.exec(target) ?? [])[0];
  const paths = links.map((link) => ({ ...link, target: link.target.replace(origin, '') }));
  if (named === undefined) return { base, links: paths, challenge };
  const { host } = parseCoapUri(base);
  const secure = parseCoapUri(named);
  const isSame = host.split('%')[0] === secure.host;
  return {
    base,
    secure: coapBase(isSame ? host : secure.host, secure.port, 'coaps'),
    links: paths,
    challenge,
  };
}

/** The gateway that an answer to a multicast comes from. Undefined for an answer of any other node. */
export function linksIn(incoming: IncomingMessage): Discovered | undefined {
  const { payload, contentFormat, code } = read(incoming);
  if (code !== '2.05' || contentFormat !== ContentFormat.LinkFormat) return undefined;
  try {
    const links = parseLinks(Buffer.from(payload).toString());
    const { address, port } = incoming.rsinfo;
    return links.length > 0 ? discoveredAt(coapBase(address, port), links) : undefined;
  } catch {
    // A node whose links cannot be read is not a gateway.
    return undefined;
  }
}

/** Bytes of a block, and its size exponent. */
const block = { bytes: 1024, exponent: 6, more: 8 } as const;

/** The ETag that the package gives to the later blocks of a body: the exclusive or of all pairs of octets. */
function tagOf(payload: Uint8Array): Buffer {
  const tag = Buffer.alloc(2);
  for (const [at, octet] of payload.entries()) tag[at % 2]! ^= octet;
  return tag;
}

/** The package sends a notification in one message only, so the first block is made here. The rest is a request for the resource. */
function observerOf(key: string, stream: ObserveWriteStream): StackObserver {
  return {
    key,
    notify: ({ code, payload = new Uint8Array(), contentFormat }) => {
      if (stream.writableEnded) return;
      stream.statusCode = code;
      if (contentFormat !== undefined) stream.setOption('Content-Format', writeUint(contentFormat));
      if (payload.length > block.bytes) {
        stream.setOption('Block2', Buffer.of(block.exponent | block.more));
        stream.setOption('ETag', tagOf(payload));
      }
      stream.write(Buffer.from(payload.subarray(0, block.bytes)));
    },
    onEnd: (listener) => stream.once('finish', listener),
    end: () => stream.end(),
  };
}

/** Has a request answered, and sends the answer. */
export async function answer(
  request: IncomingMessage,
  response: OutgoingMessage,
  answering: Answering,
  isProtected: boolean,
): Promise<void> {
  try {
    const { method, url, payload, rsinfo } = request;
    const peer = `${rsinfo.address} ${rsinfo.port} ${request._packet.token?.toString('hex')}`;
    const { Observe: observe } = request.headers as { Observe?: unknown };
    const observer = observe === 0 ? observerOf(peer, response as unknown as ObserveWriteStream) : undefined;
    const given = await answering({
      method,
      url,
      payload,
      isProtected,
      peer,
      isCancelled: observe === 1,
      ...(observer && { observer }),
      contentFormat: formatIn(request, 'Content-Format'),
      accept: formatIn(request, 'Accept'),
    });
    if (observer && given.code.startsWith('2.')) {
      observer.notify(given);
      return;
    }
    response.code = given.code;
    response.statusCode = given.code;
    if (given.contentFormat !== undefined)
      response.setOption('Content-Format', writeUint(given.contentFormat));
    response.end(given.payload && Buffer.from(given.payload));
  } catch (thrown) {
    response.code = asPosternError(thrown).coapCode;
    response.statusCode = response.code;
    response.end();
  }
}

/** Content-Format numbers by the names that the `coap` package gives instead. Other formats it gives by number. */
const formatNames: Readonly<Record<string, number>> = {
  'text/plain': ContentFormat.TextPlain,
  'application/link-format': ContentFormat.LinkFormat,
  'application/octet-stream': ContentFormat.OctetStream,
  'application/senml+json': ContentFormat.SenmlJson,
  'application/senml+cbor': ContentFormat.SenmlCbor,
  'application/vnd.oma.lwm2m+tlv': ContentFormat.LwM2mTlv,
  'application/vnd.oma.lwm2m+json': ContentFormat.LwM2mJson,
};

function formatIn({ headers }: IncomingMessage, name: 'Accept' | 'Content-Format'): number | undefined {
  const format = headers[name];
  return typeof format === 'number' ? format : formatNames[String(format)];
}

/** What the device needs to know of a response. */
export function read(incoming: IncomingMessage): StackResponse {
  const option = (number: number): Uint8Array | undefined => {
    const found = incoming._packet.options?.find(({ name }) => String(name) === String(number));
    return found?.value instanceof Buffer ? found.value : undefined;
  };
  const maxAge: unknown = incoming.headers['Max-Age'];
  const location = (incoming._packet.options ?? []).filter(({ name }) => name === 'Location-Path');
  return {
    code: incoming.code,
    location: location.map(({ value }) => `/${value}`).join(''),
    payload: incoming.payload,
    contentFormat: formatIn(incoming, 'Content-Format'),
    maxAge: typeof maxAge === 'number' ? maxAge : undefined,
    option,
  };
}
