import { createHmac } from 'node:crypto';
import { fromCbor, toCbor } from '../../base/cbor.ts';
import { plainProfile } from '../../base/cbor-profile.ts';
import { PosternError } from '../../base/errors.ts';
import { sameBytes } from './digest.ts';

/** What a device sends to the local bootstrap server to prove its factory credential (docs/bindings.md). */
export interface BootstrapProof {
  /** Fresh, 8 to 32 octets: the bootstrap repeats it, so an old one cannot be passed off as new. */
  readonly deviceNonce: Uint8Array;
  /** HMAC-SHA256, 32 octets. */
  readonly mac: Uint8Array;
}

const label = 'postern bootstrap 1';

/** HMAC-SHA256 under the factory secret over the CBOR array of label, challenge (the Echo value), DevId and device nonce. */
export const proofMac = (
  factorySecret: string,
  challenge: Uint8Array,
  deviceId: string,
  deviceNonce: Uint8Array,
): Buffer =>
  createHmac('sha256', factorySecret)
    .update(toCbor([label, Buffer.from(challenge), deviceId, Buffer.from(deviceNonce)]))
    .digest();

export const encodeProof = ({ deviceNonce, mac }: BootstrapProof): Buffer =>
  toCbor(
    new Map([
      [1, Buffer.from(deviceNonce)],
      [2, Buffer.from(mac)],
    ]),
  );

/** @throws {PosternError} `malformed` */
export function decodeProof(payload: Uint8Array): BootstrapProof {
  const map = fromCbor(payload, plainProfile, 'the proof');
  const [deviceNonce, mac] = map instanceof Map ? [map.get(1), map.get(2)] : [];
  if (
    !(deviceNonce instanceof Uint8Array) ||
    deviceNonce.length < 8 ||
    deviceNonce.length > 32 ||
    !(mac instanceof Uint8Array)
  )
    throw new PosternError('malformed', 'the proof is a map of nonce (8 to 32 bytes) and MAC');
  return { deviceNonce, mac };
}

export const isProof = (
  { deviceNonce, mac }: BootstrapProof,
  factorySecret: string,
  challenge: Uint8Array,
  deviceId: string,
): boolean => sameBytes(mac, proofMac(factorySecret, challenge, deviceId, deviceNonce));
