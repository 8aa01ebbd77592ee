import type { CoapMessage, CoapOption } from './codec.ts';
import { Code } from './codes.ts';
import { Option, opaque, optionValue, sorted, textOptions, uint, uintOption } from './options.ts';

/** The other end of an exchange. */
export interface Remote {
  readonly address: string;
  readonly port: number;
  /** Unique per address and port. */
  readonly key: string;
}

/** A response to an unproven peer may be this many times its request (RFC 9175 section 2.6). */
export const amplification = 3;

/** A request as a resource sees it: reassembled, and with its options read on demand. */
export class CoapRequest {
  readonly remote: Remote;
  readonly message: CoapMessage;
  readonly payload: Uint8Array;
  readonly multicast: boolean;
  /** Bytes that the answer may have: bounded for a peer that has not proved its address. */
  readonly allowance: number;
  #path: string[] | undefined;

  constructor(
    remote: Remote,
    message: CoapMessage,
    multicast: boolean,
    payload: Uint8Array,
    allowance: number,
  ) {
    this.remote = remote;
    this.message = message;
    this.multicast = multicast;
    this.payload = payload;
    this.allowance = allowance;
  }

  /** The same request with the body that its last block completed, all of which counts for what the answer may have. */
  withPayload(payload: Uint8Array): CoapRequest {
    const allowance = Math.max(this.allowance, payload.length * amplification);
    return new CoapRequest(this.remote, this.message, this.multicast, payload, allowance);
  }

  get method(): number {
    return this.message.code;
  }

  /** Uri-Path segments. */
  get path(): readonly string[] {
    this.#path ??= textOptions(this.message.options, Option.UriPath);
    return this.#path;
  }

  /** Uri-Query parts, `name=value` each. */
  get query(): string[] {
    return textOptions(this.message.options, Option.UriQuery);
  }

  /** Value of the query part with this name. */
  parameter(name: string): string | undefined {
    return this.query.find((part) => part.startsWith(`${name}=`))?.slice(name.length + 1);
  }

  get contentFormat(): number | undefined {
    return uintOption(this.message.options, Option.ContentFormat);
  }

  get accept(): number | undefined {
    return uintOption(this.message.options, Option.Accept);
  }

  get echo(): Uint8Array | undefined {
    return optionValue(this.message.options, Option.Echo);
  }
}

/** A response before it has a message ID and a token. */
export interface Reply {
  readonly code: number;
  readonly options: readonly CoapOption[];
  readonly payload: Uint8Array;
  /** Stands for a payload that is never whole in memory; only a GET has it, and its ETag says when it changes. */
  readonly content?: Content;
}

/** A body that is read in blocks. */
export interface Content {
  readonly size: number;
  read(from: number, length: number): Uint8Array;
}

export interface ReplyFields {
  readonly content?: Content;
  readonly payload?: Uint8Array | string;
  readonly contentFormat?: number;
  /** Seconds. */
  readonly maxAge?: number;
  readonly etag?: Uint8Array;
  readonly options?: readonly CoapOption[];
}

const empty = new Uint8Array();

export function reply(code: number, fields: ReplyFields = {}): Reply {
  const { payload = empty, content, contentFormat, maxAge, etag, options = [] } = fields;
  const all = [...options];
  if (etag !== undefined) all.push(opaque(Option.ETag, etag));
  if (contentFormat !== undefined) all.push(uint(Option.ContentFormat, contentFormat));
  if (maxAge !== undefined) all.push(uint(Option.MaxAge, maxAge));
  return {
    code,
    options: all.length > 1 ? sorted(all) : all,
    payload: typeof payload === 'string' ? Buffer.from(payload) : payload,
    ...(content && { content }),
  };
}

/** An error with its diagnostic payload (RFC 7252 section 5.5.2). */
export const refusal = (code: number, why: string, fields: ReplyFields = {}): Reply =>
  reply(code, { ...fields, payload: why });

/** Answers a request. No value means no response, which only a multicast request may get. */
export type Handler = (request: CoapRequest) => Reply | undefined | Promise<Reply | undefined>;

export const isError = (response: Reply): boolean => response.code >= Code.BadRequest;
