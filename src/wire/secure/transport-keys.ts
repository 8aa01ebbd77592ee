import { hash, hkdfSync } from 'node:crypto';
import { hashedName } from '../../base/hashed-name.ts';
import { mostIdBytes, type OscoreParameters } from './oscore/keys.ts';

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

/** A new identity for a key that is issued for DTLS. It tells nobody on the network which device has the key. */
export const issuedIdentity = (random: Uint8Array): string =>
  `gw:${Buffer.from(random).toString('base64url')}`;

/** Beginning of the identities of keys for OSCORE. The Sender ID of the device follows it: 7 characters. */
const oscorePrefix = 'oscore:';

/** A new identity for a key that is issued for OSCORE. */
export const issuedOscoreIdentity = (random: Uint8Array): string =>
  oscorePrefix + Buffer.from(random).toString('base64url').slice(0, 7);

/** Whether an issued key is for OSCORE, by its identity. */
export const isForOscore = (identity: string): boolean => identity.startsWith(oscorePrefix);

/**
 * Whether a text may be the identity of an issued key: printable ASCII, at most 128 bytes (RFC 4279 section 5.3); behind `oscore:` a
 * Sender ID.
 */
export const isIssuedIdentity = (text: string): boolean =>
  isForOscore(text)
    ? /^oscore:[\w-]{7}$/.test(text)
    : /^[!-~]{1,128}$/.test(text) && !text.startsWith(factoryPrefix);

/** Sender IDs of a gateway: in contexts that it issues, and in those of factory secrets. A device may have both contexts at once. */
const gatewayIds = { issued: Buffer.from('gw'), factory: Buffer.from('bs') } as const;

/**
 * The security context of the gateway that an issued key for OSCORE gives. The key is the Master Secret, and the Master Salt is empty. All
 * of it is printable ASCII, so it is the same for an LwM2M client that reads object 21 as texts.
 */
export const issuedContext = (identity: string, key: Uint8Array): OscoreParameters => ({
  masterSecret: key,
  senderId: gatewayIds.issued,
  recipientId: Buffer.from(identity.slice(oscorePrefix.length)),
});

/**
 * The security context of the gateway that a factory secret gives, for the bootstrap over OSCORE (docs/bindings.md). The Sender ID of the
 * device is the beginning of the SHA-256 of its DevId.
 */
export const factoryContext = (secret: string, deviceId: string): OscoreParameters => ({
  masterSecret: Buffer.from(hkdfSync('sha256', secret, '', `postern factory oscore 1 ${deviceId}`, keyBytes)),
  senderId: gatewayIds.factory,
  recipientId: hash('sha256', deviceId, 'buffer').subarray(0, mostIdBytes),
});

/** A context of the gateway as the device has it. */
export const ofDevice = ({ senderId, recipientId, ...rest }: OscoreParameters): OscoreParameters => ({
  ...rest,
  senderId: recipientId,
  recipientId: senderId,
});
