import { createHmac } from 'node:crypto';
import { fromCbor, toCbor } from '../../base/cbor.ts';
import { PosternError } from '../../base/errors.ts';
import { sameBytes } from './digest.ts';

/** Payload by which a device proves its factory secret to the local bootstrap server (docs/bindings.md). */
export interface BootstrapProof {
  /** Fresh, 8 to 32 octets. The bootstrap repeats it, so an old bootstrap cannot be replayed. */
  readonly deviceNonce: Uint8Array;
  /** HMAC-SHA256, 32 octets. */
  readonly mac: Uint8Array;
}

const label = 'postern bootstrap 1';

/**
 * The MAC of a proof: HMAC-SHA256 under the factory secret, over the CBOR array of label, challenge, DevId and device
 * nonce (docs/bindings.md). The challenge is the Echo value.
 */
export const proofMac = (
  factorySecret: string,
  challenge: Uint8Array,
  deviceId: string,
  deviceNonce: Uint8Array,
): Buffer =>
  createHmac('sha256', factorySecret)
    .update(toCbor([label, Buffer.from(challenge), deviceId, Buffer.from(deviceNonce)]))
    .digest();

/** Writes a proof as a CBOR map. */
export const encodeProof = ({ deviceNonce, mac }: BootstrapProof): Buffer =>
  toCbor(
    new Map([
      [1, Buffer.from(deviceNonce)],
      [2, Buffer.from(mac)],
    ]),
  );

/**
 * Reads a proof.
 * @throws {PosternError} `malformed`
 */
export function decodeProof(payload: Uint8Array): BootstrapProof {
  const map = fromCbor(payload, 'the proof');
  const [deviceNonce, mac] = map instanceof Map ? [map.get(1), map.get(2)] : [];
  if (
    !(deviceNonce instanceof Uint8Array) ||
    deviceNonce.length < 8 ||
    deviceNonce.length > 32 ||
    !(mac instanceof Uint8Array)
  )
    throw new PosternError('malformed', 'the proof must be a map of nonce (8 to 32 bytes) and MAC');
  return { deviceNonce, mac };
}

/** Whether the MAC of the proof is right for this secret, challenge and DevId. */
export const isProof = (
  { deviceNonce, mac }: BootstrapProof,
  factorySecret: string,
  challenge: Uint8Array,
  deviceId: string,
): boolean => sameBytes(mac, proofMac(factorySecret, challenge, deviceId, deviceNonce));
