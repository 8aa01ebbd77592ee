import { fromCbor, toCbor } from '../../base/cbor.ts';
import { PosternError } from '../../base/errors.ts';

/** Payload of a gateway's retained state topic (docs/bindings.md). */
export interface GatewayState {
  /** False in the Last Will. */
  readonly online: boolean;
  /** Version of the gateway's software. */
  readonly software: string;
  /** Changes with each start of the gateway. */
  readonly bootId: Uint8Array;
}

const version = 1;

/** Writes a gateway state as a CBOR map. */
export const encodeState = ({ online, software, bootId }: GatewayState): Buffer =>
  toCbor(
    new Map<number, unknown>([
      [1, version],
      [2, online],
      [3, software],
      [4, Buffer.from(bootId)],
    ]),
  );

/**
 * Reads a gateway state. Unknown keys are ignored.
 * @throws {PosternError} `malformed`, also for another version
 */
export function decodeState(payload: Uint8Array): GatewayState {
  const map = fromCbor(payload, 'gateway state');
  if (!(map instanceof Map) || map.get(1) !== version)
    throw new PosternError('malformed', 'not a gateway state');
  const [online, software, bootId] = [map.get(2), map.get(3), map.get(4)];
  if (typeof online !== 'boolean' || typeof software !== 'string' || !(bootId instanceof Uint8Array))
    throw new PosternError('malformed', 'not a gateway state');
  return { online, software, bootId };
}
