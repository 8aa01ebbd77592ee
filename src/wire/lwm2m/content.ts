import { PosternError } from '../../base/errors.ts';
import { ContentFormat } from '../coap/content-formats.ts';
import { typeOf } from './objects.ts';
import type { Path } from './path.ts';
import { type Entry, type TypeOf, textOf, valueFrom } from './resource.ts';
import {
  decodeOldJson,
  decodeSenmlCbor,
  decodeSenmlJson,
  encodeSenmlCbor,
  encodeSenmlJson,
} from './senml.ts';
import { decodeTlv, encodeTlv } from './tlv.ts';

/** Media types by which early clients name TLV and JSON: numbers that LwM2M 1.0's drafts had. */
const early: Readonly<Record<number, number>> = {
  1542: ContentFormat.LwM2mTlv,
  1543: ContentFormat.LwM2mJson,
};

/** Formats in which something can be written, in the order in which a device is asked to take them. */
export const writable: readonly number[] = [
  ContentFormat.LwM2mTlv,
  ContentFormat.SenmlCbor,
  ContentFormat.SenmlJson,
  ContentFormat.TextPlain,
];

/** Formats that tell the types of their values, for what no description is known of. */
export const selfDescribing: readonly number[] = [ContentFormat.SenmlCbor, ContentFormat.SenmlJson];

/**
 * Reads what came from a path (LwM2M core 1.1, section 7.4): all formats but the CBOR of 1.2.
 * @throws {PosternError} `malformed`, `unsupportedFormat`
 */
export function decodeContent(format: number | undefined, body: Uint8Array, base: Path): Entry[] {
  const known = early[format ?? -1] ?? format ?? ContentFormat.TextPlain;
  switch (known) {
    case ContentFormat.TextPlain:
      return [{ path: base, value: valueFrom(typeOf(base) ?? 'string', Buffer.from(body).toString()) }];
    case ContentFormat.OctetStream:
      return [{ path: base, value: body }];
    case ContentFormat.LwM2mTlv:
      return decodeTlv(body, base, typeOf);
    case ContentFormat.LwM2mJson:
      return decodeOldJson(body, base);
    case ContentFormat.SenmlJson:
      return decodeSenmlJson(body);
    case ContentFormat.SenmlCbor:
      return decodeSenmlCbor(body);
    default:
      throw new PosternError('unsupportedFormat', `content format ${format} is not known`);
  }
}

/**
 * Writes what goes to a path.
 * @param types of what is in it, where more is known than the descriptions tell
 * @throws {PosternError} `unsupportedFormat` for a format that cannot hold it, `malformed`
 */
export function encodeContent(
  format: number,
  entries: readonly Entry[],
  base: Path,
  types: TypeOf = typeOf,
): Uint8Array {
  switch (format) {
    case ContentFormat.LwM2mTlv:
      return encodeTlv(entries, base, types);
    case ContentFormat.SenmlCbor:
      return encodeSenmlCbor(entries, types);
    case ContentFormat.SenmlJson:
      return encodeSenmlJson(entries, types);
    default: {
      const [entry, ...more] = entries;
      const isOctets = entry?.value instanceof Uint8Array;
      const fits = format === (isOctets ? ContentFormat.OctetStream : ContentFormat.TextPlain);
      if (!entry || more.length > 0 || !fits)
        throw new PosternError('unsupportedFormat', `content format ${format} cannot hold that`);
      const { value } = entry;
      return Buffer.from(typeof value === 'boolean' ? (value ? '1' : '0') : textOf(value));
    }
  }
}
