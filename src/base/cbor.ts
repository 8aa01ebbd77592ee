import { Decoder, Encoder, setSizeLimits } from 'cbor-x';
import { PosternError } from './errors.ts';

/**
 * Makes cbor-x write and read plain CBOR (RFC 8949): no records of its own, maps as `Map`, byte strings without a tag,
 * and the shortest form of each length.
 */
const standard = {
  useRecords: false,
  mapsAsObjects: false,
  tagUint8Array: false,
  variableMapSize: true,
} as const;
const encoder = new Encoder(standard);
const decoder = new Decoder(standard);

/**
 * Largest number of items of one received array or map. No message here needs more, and without a bound five octets
 * could announce an array of a gigabyte.
 */
export const cborLimits = { items: 16_384 } as const;
setSizeLimits({
  maxArraySize: cborLimits.items,
  maxMapSize: cborLimits.items,
  maxObjectSize: cborLimits.items,
});

/** Encodes one value as a CBOR item (RFC 8949). */
export const toCbor = (value: unknown): Buffer => encoder.encode(value);

/**
 * Decodes one CBOR item. CBOR maps become `Map`s.
 * @param what what the bytes are, for the error message
 * @throws {PosternError} `malformed`
 */
export function fromCbor(coded: Uint8Array, what: string): unknown {
  try {
    return decoder.decode(coded);
  } catch (cause) {
    throw new PosternError('malformed', `${what} is not CBOR`, { cause });
  }
}
