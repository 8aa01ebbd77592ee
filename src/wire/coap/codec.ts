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
  const bad = (reason: string) => new Malformed(reason, type, messageId);

  if (code === Code.Empty) {
    if (end !== 4 || tokenLength !== 0) return bad('empty message with content');
    return { type, code, messageId, token: noBytes, options: noOptions, payload: noBytes };
  }
  const codeClass = code >> 5;
  if (codeClass === 1 || codeClass > 5) return bad('reserved code class');
  if (tokenLength > 8) return bad('reserved token length');
  let at = 4 + tokenLength;
  if (at > end) return bad('cut off in the token');
  const token = tokenLength === 0 ? noBytes : datagram.subarray(4, at);

  const options: CoapOption[] = [];
  let number = 0;
  while (at < end) {
    const byte = datagram[at++]!;
    if (byte === payloadMarker) {
      if (at === end) return bad('payload marker without payload');
      return { type, code, messageId, token, options, payload: datagram.subarray(at) };
    }
    let delta = byte >> 4;
    let length = byte & 15;
    if (delta >= 13) {
      if (delta === 15) return bad('reserved option delta');
      if (at + delta - 12 > end) return bad('cut off in an option');
      delta = delta === 13 ? datagram[at++]! + 13 : ((datagram[at++]! << 8) | datagram[at++]!) + 269;
    }
    if (length >= 13) {
      if (length === 15) return bad('reserved option length');
      if (at + length - 12 > end) return bad('cut off in an option');
      length = length === 13 ? datagram[at++]! + 13 : ((datagram[at++]! << 8) | datagram[at++]!) + 269;
    }
    number += delta;
    if (number > highestOption) return bad('option number overflow');
    if (at + length > end) return bad('cut off in an option');
    options.push({ number, value: length === 0 ? noBytes : datagram.subarray(at, at + length) });
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
export function encode(message: CoapMessage): Buffer {
  const { token, options, payload } = message;
  let length = 4 + token.length;
  let previous = 0;
  for (const { number, value } of options) {
    length += 1 + extendedLength(number - previous) + extendedLength(value.length) + value.length;
    previous = number;
  }
  if (payload.length > 0) length += 1 + payload.length;

  const target = Buffer.allocUnsafe(length);
  target[0] = (1 << 6) | (message.type << 4) | token.length;
  target[1] = message.code;
  target[2] = message.messageId >> 8;
  target[3] = message.messageId & 255;
  target.set(token, 4);
  let at = 4 + token.length;
  previous = 0;
  for (const { number, value } of options) {
    const delta = number - previous;
    target[at++] = (nibble(delta) << 4) | nibble(value.length);
    at = writeExtended(target, at, delta);
    at = writeExtended(target, at, value.length);
    target.set(value, at);
    at += value.length;
    previous = number;
  }
  if (payload.length > 0) {
    target[at++] = payloadMarker;
    target.set(payload, at);
  }
  return target;
}

/** An empty ACK or RST. */
export function encodeEmpty(type: Type, messageId: number): Buffer {
  const target = Buffer.allocUnsafe(4);
  target[0] = (1 << 6) | (type << 4);
  target[1] = Code.Empty;
  target[2] = messageId >> 8;
  target[3] = messageId & 255;
  return target;
}
