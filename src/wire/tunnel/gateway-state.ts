import { fromCbor, toCbor } from '../../base/cbor.ts';
import { plainProfile } from '../../base/cbor-profile.ts';
import { PosternError } from '../../base/errors.ts';

/** Payload of a gateway's retained state topic (docs/bindings.md). */
export interface GatewayState {
  /** False in the Last Will. */
  readonly online: boolean;
  /** Version of the gateway's software: at most 255 characters. */
  readonly software: string;
  /** Changes with each start of the gateway. At most 32 bytes. */
  readonly bootId: Uint8Array;
  /** Epoch of the gateway's alerts; absent for gateways of version 0.1.0. */
  readonly epoch?: string;
  /** What is wrong with the gateway's uplink or state file: one line for a person. At most 255 characters. */
  readonly problem?: string;
}

/** Whether a text can be the epoch of a gateway's alerts. */
export const isEpoch = (text: unknown): text is string =>
  typeof text === 'string' && /^[0-9A-Za-z]{1,32}$/.test(text);

const version = 1;
const problemLength = 255;
const softwareLength = 255;
const bootIdBytes = 32;

/** Writes a gateway state as a CBOR map. */
export const encodeState = ({ online, software, bootId, epoch, problem }: GatewayState): Buffer =>
  toCbor(
    new Map<number, unknown>([
      [1, version],
      [2, online],
      [3, software],
      [4, Buffer.from(bootId)],
      ...(epoch === undefined ? [] : ([[5, epoch]] as const)),
      ...(problem === undefined ? [] : ([[6, problem.slice(0, problemLength)]] as const)),
    ]),
  );

/**
 * Reads a gateway state. Unknown keys are ignored.
 * @throws {PosternError} `malformed`, also for another version
 */
export function decodeState(payload: Uint8Array): GatewayState {
  const map = fromCbor(payload, plainProfile, 'gateway state');
  if (!(map instanceof Map) || map.get(1) !== version)
    throw new PosternError('malformed', 'not a gateway state');
  const [online, software, bootId, problem] = [map.get(2), map.get(3), map.get(4), map.get(6)];
  if (typeof online !== 'boolean' || typeof software !== 'string' || !(bootId instanceof Uint8Array))
    throw new PosternError('malformed', 'not a gateway state');
  // Both are remembered.
  if (software.length > softwareLength || bootId.length > bootIdBytes)
    throw new PosternError('malformed', 'a gateway state with a version or boot ID that is too long');
  const epoch = map.get(5);
  const isProblem = typeof problem === 'string' && problem.length <= problemLength;
  return { online, software, bootId, ...(isEpoch(epoch) && { epoch }), ...(isProblem && { problem }) };
}
