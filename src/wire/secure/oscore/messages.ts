import { type CoapOption, decode, encodeParts, Malformed, noBytes, Type } from '../../coap/codec.ts';
import { Code, isRequestCode, isResponseCode } from '../../coap/codes.ts';
import { hasOption, Option, opaque, optionValue, sorted } from '../../coap/options.ts';
import { joinOptions, splitOptions } from './classes.ts';
import type { OscoreKeys, RequestBinding } from './keys.ts';
import { type OscoreHeader, readHeader, writeHeader } from './option.ts';

/** A message without the parts that OSCORE leaves as they are: type, message ID and token. */
export interface Content {
  readonly code: number;
  /** In ascending order of their numbers. */
  readonly options: readonly CoapOption[];
  readonly payload: Uint8Array;
}

/** A request that was protected by this party, or opened. */
export interface ProtectedRequest extends RequestBinding {
  /** It has an Observe option outside, so a response may have one too. */
  readonly isObserve: boolean;
}

const headerBytes = 4;

/** What is encrypted: the code, the options, and the payload behind its marker (RFC 8613 section 5.3). */
function plaintextOf({ code, options, payload }: Content): Buffer {
  const message = encodeParts(Type.CON, 0, 0, noBytes, options, payload);
  message[headerBytes - 1] = code;
  return message.subarray(headerBytes - 1);
}

function readPlaintext(plaintext: Buffer): Content | undefined {
  if (plaintext.length === 0) return undefined;
  const header = Buffer.of(0x40, plaintext[0]!, 0, 0);
  const message = decode(Buffer.concat([header, plaintext.subarray(1)]));
  // Nothing that is protected holds another protected message (section 4.1.3.7).
  if (message instanceof Malformed || hasOscore(message)) return undefined;
  const { code, options, payload } = message;
  return { code, options, payload };
}

/** Whether a message says that it is protected. */
export const hasOscore = ({ options }: Pick<Content, 'options'>): boolean =>
  hasOption(options, Option.Oscore);

/** The header of a protected message. Undefined when it cannot be read, or the message has no payload (section 2). */
export function headerOf({ options, payload }: Content): OscoreHeader | undefined {
  const value = optionValue(options, Option.Oscore);
  return value && payload.length > 0 ? readHeader(value) : undefined;
}

/** @param outside options of class U, and Observe for proxies */
function protectedMessage(
  keys: OscoreKeys,
  request: RequestBinding,
  header: OscoreHeader,
  code: number,
  outside: readonly CoapOption[],
  inside: Content,
): Content {
  return {
    code,
    options: sorted([...outside, opaque(Option.Oscore, writeHeader(header))]),
    payload: keys.seal(request, header.piv, plaintextOf(inside)),
  };
}

const isObserveOption = ({ number }: CoapOption): boolean => number === Option.Observe.number;

/**
 * Protects a request (section 8.1). The code outside says POST, or FETCH for one with Observe.
 * @param piv the own Partial IV, which was never used before
 */
export function protectRequest(keys: OscoreKeys, piv: Uint8Array, content: Content) {
  const { senderId: kid, idContext: kidContext } = keys.parameters;
  const { inner, outer } = splitOptions(content.options);
  const observe = inner.filter(isObserveOption);
  const request: ProtectedRequest = { kid, piv, isObserve: observe.length > 0 };
  const code = request.isObserve ? Code.FETCH : Code.POST;
  const header = { piv, kid, kidContext };
  const inside = { ...content, options: inner };
  return { request, message: protectedMessage(keys, request, header, code, [...outer, ...observe], inside) };
}

/** Opens a request (section 8.2). Undefined when it does not verify, or holds no request. */
export function openRequest(keys: OscoreKeys, { kid, piv }: RequestBinding, message: Content) {
  const request: ProtectedRequest = {
    // They outlive the datagram.
    kid: Buffer.from(kid),
    piv: Buffer.from(piv),
    isObserve: hasOption(message.options, Option.Observe),
  };
  const plaintext = keys.open(request, piv, message.payload);
  const content = plaintext && readPlaintext(plaintext);
  if (!content || !isRequestCode(content.code)) return undefined;
  return { request, content: { ...content, options: joinOptions(content.options, message.options) } };
}

/**
 * Protects a response (section 8.3). The code outside says 2.04, or 2.05 for one with Observe.
 * @param piv the own Partial IV. Without it the nonce of the request is used, which is allowed once for each request. A notification
 *   and the answer to a request that may be repeated need their own
 */
export function protectResponse(
  keys: OscoreKeys,
  request: ProtectedRequest,
  piv: Uint8Array | undefined,
  content: Content,
): Content {
  const { inner, outer } = splitOptions(content.options);
  const observe = request.isObserve ? inner.filter(isObserveOption) : [];
  const code = observe.length > 0 ? Code.Content : Code.Changed;
  // Inside it is empty: the order of notifications is that of their Partial IVs (section 4.1.3.5.2).
  const empty = opaque(Option.Observe, noBytes);
  const options = inner.map((option) => (isObserveOption(option) ? empty : option));
  return protectedMessage(keys, request, { piv }, code, [...outer, ...observe], { ...content, options });
}

/** Opens a response (section 8.4). Undefined when it does not verify, or holds no response. */
export function openResponse(
  keys: OscoreKeys,
  request: RequestBinding,
  message: Content,
): Content | undefined {
  const header = headerOf(message);
  const plaintext = header && keys.open(request, header.piv, message.payload);
  const content = plaintext && readPlaintext(plaintext);
  return content && isResponseCode(content.code)
    ? { ...content, options: joinOptions(content.options, message.options) }
    : undefined;
}
