// The global is a getter of Node, which takes time for each datagram.
import { Buffer } from 'node:buffer';
import { Code } from './codes.ts';

/** Message types, RFC 7252 section 3. */
export const Type = { CON: 0, NON: 1, ACK: 2, RST: 3 } as const;
export type Type = (typeof Type)[keyof typeof Type];

/** One option, by its absolute number (RFC 7252 section 3.1). */
export interface CoapOption {
  readonly number: number;
  readonly value: Uint8Array;
}

/** One CoAP message (RFC 7252 section 3). `options` are in ascending order of their numbers. */
export interface CoapMessage {
  readonly type: Type;
  readonly code: number;
  readonly messageId: number;
  readonly token: Uint8Array;
  readonly options: readonly CoapOption[];
  readonly payload: Uint8Array;
}

/**
 * Why a datagram is not a CoAP message. It is a value and not an exception, because malformed datagrams from the LAN
 * are ordinary and must be cheap. `type` and `messageId` are present when the header could be read; then the sender can
 * be answered by a Reset.
 */
export class Malformed {
  readonly reason: string;
  readonly messageId: number | undefined;
  readonly type: Type | undefined;

  constructor(reason: string, type?: Type, messageId?: number) {
    this.reason = reason;
    this.type = type;
    this.messageId = messageId;
  }
}

/** The shared empty value of tokens, options and payloads. */
export const noBytes: Buffer = Buffer.alloc(0);
const noOptions: readonly CoapOption[] = Object.freeze([]);
const payloadMarker = 0xff;
/** Option numbers are 16 bits wide (RFC 7252 section 12.2). */
const highestOption = 0xffff;

/**
 * Reads one datagram (RFC 7252 section 3). The token, the option values and the payload of the message are views into
 * the datagram, not copies. Never throws.
 */
export function decode(datagram: Buffer): CoapMessage | Malformed {
  const end = datagram.length;
  if (end < 4) return new Malformed('shorter than a header');
  const first = datagram[0]!;
  if (first >> 6 !== 1) return new Malformed('version is not 1');
  const type = ((first >> 4) & 3) as Type;
  const tokenLength = first & 15;
  const code = datagram[1]!;
  const messageId = (datagram[2]! << 8) | datagram[3]!;

  if (code === Code.Empty) {
    if (end !== 4 || tokenLength !== 0) return new Malformed('empty message with content', type, messageId);
    return { type, code, messageId, token: noBytes, options: noOptions, payload: noBytes };
  }
  const codeClass = code >> 5;
  if (codeClass === 1 || codeClass > 5) return new Malformed('reserved code class', type, messageId);
  if (tokenLength > 8) return new Malformed('reserved token length', type, messageId);
  let at = 4 + tokenLength;
  if (at > end) return new Malformed('cut off in the token', type, messageId);
  const token = tokenLength === 0 ? noBytes : datagram.subarray(4, at);

  let options: readonly CoapOption[] = noOptions;
  let several: CoapOption[] | undefined;
  let number = 0;
  while (at < end) {
    const byte = datagram[at++]!;
    if (byte === payloadMarker) {
      if (at === end) return new Malformed('payload marker without payload', type, messageId);
      return { type, code, messageId, token, options, payload: datagram.subarray(at) };
    }
    let delta = byte >> 4;
    let length = byte & 15;
    if (delta >= 13) {
      if (delta === 15) return new Malformed('reserved option delta', type, messageId);
      if (at + delta - 12 > end) return new Malformed('cut off in an option', type, messageId);
      delta = delta === 13 ? datagram[at++]! + 13 : ((datagram[at++]! << 8) | datagram[at++]!) + 269;
    }
    if (length >= 13) {
      if (length === 15) return new Malformed('reserved option length', type, messageId);
      if (at + length - 12 > end) return new Malformed('cut off in an option', type, messageId);
      length = length === 13 ? datagram[at++]! + 13 : ((datagram[at++]! << 8) | datagram[at++]!) + 269;
    }
    number += delta;
    if (number > highestOption) return new Malformed('option number overflow', type, messageId);
    if (at + length > end) return new Malformed('cut off in an option', type, messageId);
    const option = { number, value: length === 0 ? noBytes : datagram.subarray(at, at + length) };
    // An empty array makes room for 17 when the first is pushed. Most messages have one option or two.
    if (several) several.push(option);
    else options = several = [option];
    at += length;
  }
  return { type, code, messageId, token, options, payload: noBytes };
}

const nibble = (value: number): number => (value < 13 ? value : value < 269 ? 13 : 14);
const extendedLength = (value: number): number => (value < 13 ? 0 : value < 269 ? 1 : 2);

function writeExtended(target: Buffer, at: number, value: number): number {
  if (value < 13) return at;
  if (value < 269) {
    target[at] = value - 13;
    return at + 1;
  }
  target[at] = (value - 269) >> 8;
  target[at + 1] = (value - 269) & 255;
  return at + 2;
}

/**
 * Writes one message (RFC 7252 section 3). The caller ensures that the token has at most 8 bytes and that the options
 * are in ascending order; neither is checked.
 */
export const encode = ({ type, code, messageId, token, options, payload }: CoapMessage): Buffer =>
  encodeParts(type, code, messageId, token, options, payload);

/** The same for the parts of a message. */
export function encodeParts(
  type: Type,
  code: number,
  messageId: number,
  token: Uint8Array,
  options: readonly CoapOption[],
  payload: Uint8Array,
): Buffer {
  let length = 4 + token.length;
  let previous = 0;
  for (const { number, value } of options) {
    length += 1 + extendedLength(number - previous) + extendedLength(value.length) + value.length;
    previous = number;
  }
  if (payload.length > 0) length += 1 + payload.length;

  const target = Buffer.allocUnsafe(length);
  target[0] = (1 << 6) | (type << 4) | token.length;
  target[1] = code;
  target[2] = messageId >> 8;
  target[3] = messageId & 255;
  let at = copyOctets(token, target, 4);
  previous = 0;
  for (const { number, value } of options) {
    const delta = number - previous;
    target[at++] = (nibble(delta) << 4) | nibble(value.length);
    at = writeExtended(target, at, delta);
    at = writeExtended(target, at, value.length);
    at = copyOctets(value, target, at);
    previous = number;
  }
  if (payload.length > 0) {
    target[at++] = payloadMarker;
    copyOctets(payload, target, at);
  }
  return target;
}

/** Below this many bytes a loop takes less time than `set`. */
const worthACall = 32;

/** Copies all bytes of `source` to `at`, and returns where they end. */
export function copyOctets(source: Uint8Array, target: Buffer, at: number): number {
  const { length } = source;
  if (length >= worthACall) target.set(source, at);
  else for (let index = 0; index < length; index++) target[at + index] = source[index]!;
  return at + length;
}

/** Whether a datagram has no more than a header, as a ping (`CON`) and its answer (`RST`) have (RFC 7252 sections 4.2 and 4.3). */
export const isEmpty = (datagram: Buffer, type: Type): boolean =>
  datagram.length === 4 && ((datagram[0]! >> 4) & 3) === type;

/** An empty message. */
export function encodeEmpty(type: Type, messageId: number): Buffer {
  const target = Buffer.allocUnsafe(4);
  target[0] = (1 << 6) | (type << 4);
  target[1] = Code.Empty;
  target[2] = messageId >> 8;
  target[3] = messageId & 255;
  return target;
}
