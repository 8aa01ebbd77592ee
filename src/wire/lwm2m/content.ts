import { PosternError } from '../../base/errors.ts';
import { ContentFormat } from '../coap/content-formats.ts';
import { decodeLwm2mCbor, encodeLwm2mCbor } from './lwm2m-cbor.ts';
import { typeOf } from './objects.ts';
import type { Path } from './path.ts';
import { type Entry, type TypeOf, textOf, type Value, valueFrom } from './resource.ts';
import {
  decodeCbor,
  decodeOldJson,
  decodeSenmlCbor,
  decodeSenmlJson,
  encodeCbor,
  encodeSenmlCbor,
  encodeSenmlJson,
} from './senml.ts';
import { decodeTlv, encodeTlv } from './tlv.ts';

/** Content-Format numbers in the drafts of LwM2M 1.0, which early clients still use. */
const draftFormats: Readonly<Record<number, number>> = {
  1541: ContentFormat.TextPlain,
  1542: ContentFormat.LwM2mTlv,
  1543: ContentFormat.LwM2mJson,
  1544: ContentFormat.OctetStream,
};

/** Content-Format numbers that can be written to a device, in the order in which they are tried. */
export const writable: readonly number[] = [
  ContentFormat.LwM2mTlv,
  ContentFormat.SenmlCbor,
  ContentFormat.SenmlJson,
  ContentFormat.TextPlain,
];

/** The same, and those that are used only with a device that names them in its registration. */
export const nameable: readonly number[] = [...writable, ContentFormat.LwM2mCbor];

/** Content-Format numbers that carry the types of values, for resources that have no description in `objects.ts`. */
export const selfDescribing: readonly number[] = [ContentFormat.SenmlCbor, ContentFormat.SenmlJson];

/**
 * Reads the content of a path (LwM2M core 1.1, section 7.4). LwM2M CBOR is of 1.2.
 * @param format Content-Format number; without it the content is plain text
 * @param base path that was read or written
 * @param isTold what a client tells of itself: a value that does not fit the description of its resource is left as the text or the
 *   octets that came, and costs none of the others. The client may have another resource there
 * @throws {PosternError} `malformed`, `unsupportedFormat`, `tooLarge`
 */
export function decodeContent(
  format: number | undefined,
  body: Uint8Array,
  base: Path,
  isTold = false,
): Entry[] {
  const known = draftFormats[format ?? -1] ?? format ?? ContentFormat.TextPlain;
  switch (known) {
    case ContentFormat.TextPlain:
      return [{ path: base, value: valueOfText(base, Buffer.from(body).toString(), isTold) }];
    case ContentFormat.OctetStream:
      return [{ path: base, value: body }];
    case ContentFormat.LwM2mTlv:
      return decodeTlv(body, base, typeOf, isTold);
    case ContentFormat.LwM2mJson:
      return decodeOldJson(body, base);
    case ContentFormat.SenmlJson:
      return decodeSenmlJson(body).map(asDescribed);
    case ContentFormat.SenmlCbor:
      return decodeSenmlCbor(body).map(asDescribed);
    case ContentFormat.LwM2mCbor:
      return decodeLwm2mCbor(body).map(asDescribed);
    case ContentFormat.Cbor:
      return [asDescribed({ path: base, ...decodeCbor(body) })];
    default:
      throw new PosternError('unsupportedFormat', `content format ${format} is not supported`);
  }
}

function valueOfText(path: Path, text: string, isTold: boolean): Value {
  try {
    return valueFrom(typeOf(path) ?? 'string', text);
  } catch (thrown) {
    if (!isTold) throw thrown;
    return text;
  }
}

/** A float that the client wrote without a point, and that has more digits than an integer in a number, was read as an integer. */
const asDescribed = (entry: Entry): Entry =>
  entry.type === 'integer' && typeof entry.value === 'string' && typeOf(entry.path) === 'float'
    ? { ...entry, value: Number(entry.value) }
    : entry;

/**
 * Writes the content of a path (LwM2M core 1.1, section 7.4).
 * @param base path that is written
 * @param types resource types by path, where the caller knows more than the descriptions in `objects.ts`
 * @throws {PosternError} `unsupportedFormat` when the format cannot hold these entries, `malformed`
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
    case ContentFormat.LwM2mCbor:
      return encodeLwm2mCbor(entries, types);
    default: {
      const [entry, ...more] = entries;
      const isOctets = entry?.value instanceof Uint8Array;
      const plain = isOctets ? ContentFormat.OctetStream : ContentFormat.TextPlain;
      const fits = format === plain || format === ContentFormat.Cbor;
      if (!entry || more.length > 0 || !fits)
        throw new PosternError('unsupportedFormat', `content format ${format} cannot hold these values`);
      if (format === ContentFormat.Cbor) return encodeCbor(entry, types);
      const { value } = entry;
      return Buffer.from(typeof value === 'boolean' ? (value ? '1' : '0') : textOf(value));
    }
  }
}
