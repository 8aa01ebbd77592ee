import { Buffer } from 'node:buffer';
import type { Standing } from '../../base/admission.ts';
import type { CoapMessage, CoapOption } from './codec.ts';
import { Code } from './codes.ts';
import { Option, opaque, optionValue, sorted, textOptions, uint, uintOption } from './options.ts';

/** The other end of an exchange. */
export interface Remote {
  readonly address: string;
  readonly port: number;
  /** Unique per address and port, or per association of a secure transport. */
  readonly key: string;
  /** Who the peer proved to be, to a secure transport or by the protection of its request. */
  readonly identity?: string | undefined;
  /** The kind of key by which it proved that, in the words of whoever gave out the keys. */
  readonly credential?: string | undefined;
  /** As whom the peer is counted where its proofs are, instead of by its identity. */
  readonly party?: string | undefined;
  /** Most bytes of a datagram to it. Absent where only the path has a limit. */
  readonly datagramBytes?: number | undefined;
}

/**
 * How many times larger than the request a response may be, for a peer that has not proved its address (RFC 9175
 * section 2.6).
 */
export const amplification = 3;

/** What limits the responses to a peer. */
export interface Account {
  /** Bytes that may be sent to it now. `Infinity` for a peer that has proved its address. */
  readonly room: number;
  readonly standing: Standing;
}

/**
 * Protects a response.
 * @throws {PosternError} when it cannot be protected. Then it must not be sent
 */
export type Seal = (reply: Reply) => Promise<Reply>;

/** A request as a handler sees it: its body is reassembled, and its options are read on demand. */
export class CoapRequest {
  readonly remote: Remote;
  readonly message: CoapMessage;
  readonly payload: Uint8Array;
  readonly multicast: boolean;
  /** Protects a later response to this request, such as a notification. Absent where the request was not protected. */
  readonly seal: Seal | undefined;
  readonly #account: Account;
  #query: readonly string[] | undefined;
  #path: string[] | undefined;

  constructor(
    remote: Remote,
    message: CoapMessage,
    multicast: boolean,
    payload: Uint8Array,
    account: Account,
    seal?: Seal,
  ) {
    this.seal = seal;
    this.remote = remote;
    this.message = message;
    this.multicast = multicast;
    this.payload = payload;
    this.#account = account;
  }

  /**
   * Most bytes of the response's datagram. `Infinity` for a peer that has proved its address. A request may be the proof
   * itself, so the value is read when the response is there.
   */
  get allowance(): number {
    return this.#account.room;
  }

  /** What is known of the sender. Like the allowance, it may change while the request is handled. */
  get standing(): Standing {
    return this.#account.standing;
  }

  /** The same request with its whole body. */
  withPayload(payload: Uint8Array): CoapRequest {
    return new CoapRequest(this.remote, this.message, this.multicast, payload, this.#account, this.seal);
  }

  /** What was inside of this request, from a peer that has proved who it is. */
  opened(owner: Pick<Remote, 'identity' | 'credential'>, message: CoapMessage, seal: Seal): CoapRequest {
    const { address, port, key } = this.remote;
    return new CoapRequest(
      { address, port, key, ...owner },
      message,
      false,
      message.payload,
      this.#account,
      seal,
    );
  }

  /** Request code. */
  get method(): number {
    return this.message.code;
  }

  /** Uri-Path segments. */
  get path(): readonly string[] {
    this.#path ??= textOptions(this.message.options, Option.UriPath);
    return this.#path;
  }

  /** Uri-Query parts, `name=value` each. */
  get query(): readonly string[] {
    this.#query ??= textOptions(this.message.options, Option.UriQuery);
    return this.#query;
  }

  /** Value of the first query part with this name. */
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

/** A response without message ID and token. */
export interface Reply {
  readonly code: number;
  readonly options: readonly CoapOption[];
  readonly payload: Uint8Array;
  /** Replaces `payload` for a body that is never whole in memory. Only for a GET whose ETag changes with the body. */
  readonly content?: Content;
}

/** A body that is read block by block. */
export interface Content {
  /** Bytes of the whole body. */
  readonly size: number;
  /** Returns `length` bytes from offset `from`, both within the body. */
  read(from: number, length: number): Uint8Array;
}

/** The parts of a response besides its code. */
export interface ReplyFields {
  readonly content?: Content;
  /** A string is sent as UTF-8. */
  readonly payload?: Uint8Array | string;
  /** Content-Format number. */
  readonly contentFormat?: number;
  /** Max-Age in seconds. */
  readonly maxAge?: number;
  readonly etag?: Uint8Array;
  readonly options?: readonly CoapOption[];
}

const empty = new Uint8Array();
const none: readonly CoapOption[] = Object.freeze([]);

const joined = (options: readonly CoapOption[], option: CoapOption): readonly CoapOption[] =>
  options.length === 0 ? [option] : [...options, option];

/** Makes a response with its options in ascending order. */
export function reply(code: number, fields: ReplyFields = {}): Reply {
  const { payload = empty, content, contentFormat, maxAge, etag, options = none } = fields;
  let all = options;
  if (etag !== undefined) all = joined(all, opaque(Option.ETag, etag));
  if (contentFormat !== undefined) all = joined(all, uint(Option.ContentFormat, contentFormat));
  if (maxAge !== undefined) all = joined(all, uint(Option.MaxAge, maxAge));
  const body = {
    code,
    options: all.length > 1 ? sorted(all) : all,
    payload: typeof payload === 'string' ? Buffer.from(payload) : payload,
  };
  return content ? { ...body, content } : body;
}

/** Makes an error response. `why` is its diagnostic payload (RFC 7252 section 5.5.2). */
export const refusal = (code: number, why: string, fields: ReplyFields = {}): Reply =>
  reply(code, { ...fields, payload: why });

/** Responds to a request. `undefined` means no response, which is allowed for a multicast request only. */
export type Handler = (request: CoapRequest) => Reply | undefined | Promise<Reply | undefined>;

/** Whether the response has a code of class 4 or 5. */
export const isError = (response: Reply): boolean => response.code >= Code.BadRequest;
