import { fromCbor, toCbor } from '../../base/cbor.ts';
import { plainProfile } from '../../base/cbor-profile.ts';
import { PosternError } from '../../base/errors.ts';

/** What a gateway says of itself in its retained state topic (docs/bindings.md). */
export interface GatewayState {
  readonly online: boolean;
  readonly software: string;
  /** Another one after each start. */
  readonly bootId: Uint8Array;
}

const version = 1;

export const encodeState = ({ online, software, bootId }: GatewayState): Buffer =>
  toCbor(
    new Map<number, unknown>([
      [1, version],
      [2, online],
      [3, software],
      [4, Buffer.from(bootId)],
    ]),
  );

/** @throws {PosternError} `malformed` */
export function decodeState(payload: Uint8Array): GatewayState {
  const map = fromCbor(payload, plainProfile, 'gateway state');
  if (!(map instanceof Map) || map.get(1) !== version)
    throw new PosternError('malformed', 'no gateway state');
  const [online, software, bootId] = [map.get(2), map.get(3), map.get(4)];
  if (typeof online !== 'boolean' || typeof software !== 'string' || !(bootId instanceof Uint8Array))
    throw new PosternError('malformed', 'no gateway state');
  return { online, software, bootId };
}
