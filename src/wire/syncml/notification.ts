import { PosternError } from '../../base/errors.ts';
import { notificationDigest, sameBytes } from './digest.ts';

/** Package #0 (OMA DM notification 1.2.1, section 6.2), by which a server asks a client to open a session. */
export interface Notification {
  /** Field ui-mode. */
  readonly uiMode: 0 | 1 | 2 | 3;
  /** Field initiator: true when the server asks on its own account, false when a user does. */
  readonly serverInitiated: boolean;
  /** 1 to 65535. */
  readonly sessionId: number;
  /** 1 to 255 bytes of UTF-8. */
  readonly serverId: string;
  /** Absent for DM 1.1 and 1.2. */
  readonly version?: '1.3';
}

/** Package #0 as it was received, with the parts that `isAuthentic` needs. */
export interface SignedNotification extends Notification {
  /** 16 octets. */
  readonly digest: Uint8Array;
  /** All octets after the digest. */
  readonly trigger: Uint8Array;
}

const digestBytes = 16;
const headerBytes = 8;
/**
 * Values of the field version, ten bits, in tenths. DM 1.1 and 1.2 both write 1.1 (0000001011); some servers write 1.2.
 * That DM 1.3 writes 1.3 is an assumption (docs/architecture.md).
 */
const versions = { usual: 11, alsoUsual: 12, dm13: 13 } as const;
const known: ReadonlySet<number> = new Set(Object.values(versions));

/**
 * Nonces of a Package #0 from a server that does not know the client's nonce any more (OMA DM notification 1.2.1,
 * section 6.1). The specification says `0x00000000`. The first nonce is that text, as public clients read it; the second
 * is four zero octets.
 */
export const resyncNonces: readonly [Uint8Array, Uint8Array] = [Buffer.from('0x00000000'), Buffer.alloc(4)];

function encodeTrigger({ uiMode, serverInitiated, sessionId, serverId, version }: Notification): Buffer {
  const id = Buffer.from(serverId);
  if (id.length === 0 || id.length > 255)
    throw new PosternError('malformed', 'the ServerID must have 1 to 255 bytes');
  const header = Buffer.alloc(headerBytes);
  // version (10 bits), ui-mode (2), initiator (1), future use (27), session ID (16), length of the ServerID (8)
  const tenths = version === '1.3' ? versions.dm13 : versions.usual;
  header.writeUInt16BE((tenths << 6) | (uiMode << 4) | (serverInitiated ? 8 : 0), 0);
  header.writeUInt16BE(sessionId, 5);
  header[7] = id.length;
  return Buffer.concat([header, id]);
}

/**
 * Writes Package #0 with its digest.
 * @param secret password of the server
 * @throws {PosternError} `malformed` for a ServerID that is empty or too long
 */
export function encodeNotification(notification: Notification, secret: string, nonce: Uint8Array): Buffer {
  const trigger = encodeTrigger(notification);
  return Buffer.concat([notificationDigest(notification.serverId, secret, nonce, trigger), trigger]);
}

/**
 * Reads Package #0. The digest is not verified; `isAuthentic` does that.
 * @throws {PosternError} `malformed`, `unsupportedVersion`
 */
export function decodeNotification(datagram: Uint8Array): SignedNotification {
  const bytes = Buffer.from(datagram);
  if (bytes.length < digestBytes + headerBytes + 1)
    throw new PosternError('malformed', 'Package #0 is too short');
  const trigger = bytes.subarray(digestBytes);
  const bits = trigger.readUInt16BE(0);
  if (!known.has(bits >> 6))
    throw new PosternError(
      'unsupportedVersion',
      `version ${(bits >> 6) / 10} of Package #0 is not supported`,
    );
  const length = trigger[7]!;
  if (length === 0 || trigger.length < headerBytes + length)
    throw new PosternError('malformed', 'the ServerID of Package #0 is empty or incomplete');
  const sessionId = trigger.readUInt16BE(5);
  if (sessionId === 0) throw new PosternError('malformed', 'Package #0 has session ID 0');
  return {
    uiMode: ((bits >> 4) & 3) as Notification['uiMode'],
    serverInitiated: (bits & 8) !== 0,
    sessionId,
    serverId: trigger.toString('utf8', headerBytes, headerBytes + length),
    ...(bits >> 6 === versions.dm13 && { version: '1.3' as const }),
    digest: bytes.subarray(0, digestBytes),
    trigger,
  };
}

/** Whether the digest is right for this secret and nonce. */
export const isAuthentic = (notification: SignedNotification, secret: string, nonce: Uint8Array): boolean =>
  sameBytes(
    notification.digest,
    notificationDigest(notification.serverId, secret, nonce, notification.trigger),
  );

/** The session ID in DM messages: hexadecimal, without leading zeros (OMA DM notification 1.2.1, section 6.2.2.10). */
export const sessionIdText = (sessionId: number): string => sessionId.toString(16).toUpperCase();
