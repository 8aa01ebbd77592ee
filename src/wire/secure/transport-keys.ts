import { hkdfSync } from 'node:crypto';
import { hashedName } from '../../base/hashed-name.ts';

/** Beginning of the identities that stand for factory credentials. No key that is issued has such an identity. */
export const factoryPrefix = 'factory:';

/** Identity of the pre-shared key that a factory secret gives. It says no more of the device than it must. */
export const factoryIdentity = (deviceId: string): string => `${factoryPrefix}${hashedName(deviceId)}`;

/** Octets of a key. */
const keyBytes = 32;

/**
 * The pre-shared key that a factory secret gives, for the bootstrap over DTLS (docs/bindings.md). It is derived by HKDF-SHA-256
 * (RFC 5869): the secret is also the key of the MACs of a bootstrap, and a key has one use.
 */
export const factoryKey = (secret: string, deviceId: string): Buffer =>
  Buffer.from(hkdfSync('sha256', secret, '', `postern factory dtls 1 ${deviceId}`, keyBytes));

/**
 * The pre-shared key that a DM server gives a device for its gateway, without sending it: from the secret of the device towards the
 * DM server, a salt that is sent, and the identity of the key. As text, since AAuthSecret is text.
 */
export const derivedKey = (secret: string, salt: Uint8Array, identity: string): string =>
  Buffer.from(hkdfSync('sha256', secret, salt, `postern gateway dtls 1 ${identity}`, keyBytes)).toString(
    'base64url',
  );

/** Octets of the random part of an identity. */
export const identityBytes = 12;
/** Octets of a random key. */
export const secretBytes = 16;

/** A new identity for a key that is issued. It tells nobody on the network which device has the key. */
export const issuedIdentity = (random: Uint8Array): string =>
  `gw:${Buffer.from(random).toString('base64url')}`;

/** Whether a text may be the identity of an issued key: printable ASCII, at most 128 bytes (RFC 4279 section 5.3). */
export const isIssuedIdentity = (text: string): boolean =>
  /^[!-~]{1,128}$/.test(text) && !text.startsWith(factoryPrefix);
