import { createHmac } from 'node:crypto';
import { uint, vector } from './bytes.ts';
import { keyBytes, type Suite, saltBytes } from './suites.ts';

const hmac = (key: Uint8Array, ...parts: readonly Uint8Array[]): Buffer => {
  const mac = createHmac('sha256', key);
  for (const part of parts) mac.update(part);
  return mac.digest();
};

/** The PRF with SHA-256 (RFC 5246 section 5): `length` bytes from a secret, a label and a seed. */
export function prf(secret: Uint8Array, label: string, seed: Uint8Array, length: number): Buffer {
  const labelled = Buffer.concat([Buffer.from(label), seed]);
  const blocks: Buffer[] = [];
  let a: Buffer = labelled;
  for (let made = 0; made < length; made += 32) {
    a = hmac(secret, a);
    blocks.push(hmac(secret, a, labelled));
  }
  const whole = Buffer.concat(blocks, length);
  for (const block of blocks) block.fill(0);
  return whole;
}

/**
 * The premaster secret of a pre-shared key (RFC 4279 section 2), or of one with a Diffie-Hellman secret (RFC 5489 section 2).
 * @param other the Diffie-Hellman secret, which is overwritten
 */
export function premasterOf(psk: Uint8Array, other: Uint8Array = Buffer.alloc(psk.length)): Buffer {
  const front = vector(2, other);
  const premaster = Buffer.concat([front, uint(psk.length, 2), psk]);
  front.fill(0);
  other.fill(0);
  return premaster;
}

/** What the master secret depends on besides the premaster secret. */
export interface MasterSeed {
  /** Hash over the handshake up to ClientKeyExchange, when both ends use the extended master secret (RFC 7627 section 4). */
  readonly sessionHash: Uint8Array | undefined;
  readonly clientRandom: Uint8Array;
  readonly serverRandom: Uint8Array;
}

/** The master secret, 48 bytes (RFC 5246 section 8.1, RFC 7627 section 4). */
export const masterSecret = (
  premaster: Uint8Array,
  { sessionHash, clientRandom, serverRandom }: MasterSeed,
): Buffer =>
  sessionHash
    ? prf(premaster, 'extended master secret', sessionHash, 48)
    : prf(premaster, 'master secret', Buffer.concat([clientRandom, serverRandom]), 48);

/**
 * The keys of both directions in one piece, as the standard orders them: MAC keys, encryption keys, fixed parts of nonces, the
 * client's before the server's each (RFC 5246 section 6.3).
 */
export function keyBlock(
  suite: Suite,
  master: Uint8Array,
  clientRandom: Uint8Array,
  serverRandom: Uint8Array,
): Buffer {
  const length = 2 * (keyBytes + saltBytes(suite));
  return prf(master, 'key expansion', Buffer.concat([serverRandom, clientRandom]), length);
}

/** The contents of a Finished message (RFC 5246 section 7.4.9). */
export const verifyData = (master: Uint8Array, sender: 'client' | 'server', transcript: Uint8Array): Buffer =>
  prf(master, `${sender} finished`, transcript, 12);
