import { Decoder, Encoder } from 'cbor-x';
import { PosternError } from '../base/errors.ts';

/** What a gateway says of itself in its retained state topic (docs/bindings.md). */
export interface GatewayState {
  readonly online: boolean;
  readonly software: string;
  /** Another one after each start. */
  readonly bootId: Uint8Array;
}

const standard = {
  useRecords: false,
  mapsAsObjects: false,
  tagUint8Array: false,
  variableMapSize: true,
} as const;
const encoder = new Encoder(standard);
const decoder = new Decoder(standard);
const version = 1;

export const encodeState = ({ online, software, bootId }: GatewayState): Buffer =>
  encoder.encode(
    new Map<number, unknown>([
      [1, version],
      [2, online],
      [3, software],
      [4, Buffer.from(bootId)],
    ]),
  );

/** @throws {PosternError} `malformed` */
export function decodeState(payload: Uint8Array): GatewayState {
  let map: unknown;
  try {
    map = decoder.decode(payload);
  } catch (cause) {
    throw new PosternError('malformed', 'gateway state is no CBOR', { cause });
  }
  if (!(map instanceof Map) || map.get(1) !== version)
    throw new PosternError('malformed', 'no gateway state');
  const [online, software, bootId] = [map.get(2), map.get(3), map.get(4)];
  if (typeof online !== 'boolean' || typeof software !== 'string' || !(bootId instanceof Uint8Array))
    throw new PosternError('malformed', 'no gateway state');
  return { online, software, bootId };
}
