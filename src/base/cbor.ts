import { Decoder, Encoder, setSizeLimits } from 'cbor-x';
import { PosternError } from './errors.ts';

/** Standard CBOR: none of the package's records, maps as maps, byte strings as they are, heads as short as they can be. */
const standard = {
  useRecords: false,
  mapsAsObjects: false,
  tagUint8Array: false,
  variableMapSize: true,
} as const;
const encoder = new Encoder(standard);
const decoder = new Decoder(standard);

/** What one array or map may hold, whoever sends it: nothing here needs more, and a head of five octets can ask for a gigabyte. */
export const cborLimits = { items: 16_384 } as const;
setSizeLimits({
  maxArraySize: cborLimits.items,
  maxMapSize: cborLimits.items,
  maxObjectSize: cborLimits.items,
});

export const toCbor = (value: unknown): Buffer => encoder.encode(value);

/**
 * Reads one CBOR item; maps are `Map`s.
 * @param what of which it is, for the error
 * @throws {PosternError} `malformed`
 */
export function fromCbor(coded: Uint8Array, what: string): unknown {
  try {
    return decoder.decode(coded);
  } catch (cause) {
    throw new PosternError('malformed', `${what} is no CBOR`, { cause });
  }
}
