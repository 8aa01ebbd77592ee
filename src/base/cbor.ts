import { Decoder, Encoder, setSizeLimits } from 'cbor-x';
import { type CborProfile, cborLimits, checkCbor } from './cbor-profile.ts';
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

setSizeLimits({
  maxArraySize: cborLimits.items,
  maxMapSize: cborLimits.items,
  maxObjectSize: cborLimits.items,
});

export const toCbor = (value: unknown): Buffer => encoder.encode(value);

/**
 * Reads one CBOR item; maps are `Map`s.
 * @param profile what of CBOR this kind of document may use
 * @param what names the kind of document in errors
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function fromCbor(coded: Uint8Array, profile: CborProfile, what: string): unknown {
  checkCbor(coded, profile, what);
  try {
    return decoder.decode(coded);
  } catch (cause) {
    throw new PosternError('malformed', `${what} is no CBOR`, { cause });
  }
}
