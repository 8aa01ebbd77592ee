import { PosternError } from '../../base/errors.ts';
import { notificationDigest, sameBytes } from './digest.ts';

/** Package #0 (OMA DM notification 1.2.1, section 6.2): the server asks the client to open a session. */
export interface Notification {
  readonly uiMode: 0 | 1 | 2 | 3;
  /** True when the server acts of itself, false for a user. */
  readonly serverInitiated: boolean;
  /** 1 to 65535. */
  readonly sessionId: number;
  /** At most 255 bytes. */
  readonly serverId: string;
  /** DM 1.1 and 1.2 when absent. */
  readonly version?: '1.3';
}

export interface SignedNotification extends Notification {
  readonly digest: Uint8Array;
  readonly trigger: Uint8Array;
}

const digestBytes = 16;
const headerBytes = 8;
/**
 * The version's ten bits are tenths: DM 1.1 and 1.2 both write 1.1 here, 0000001011, and some servers 1.2. That DM 1.3
 * writes 1.3 is an assumption (docs/architecture.md).
 */
const versions = { usual: 11, alsoUsual: 12, dm13: 13 } as const;
const known: ReadonlySet<number> = new Set(Object.values(versions));

/**
 * The nonce of a Package #0 that a server sends when it does not know the client's any more (OMA DM notification 1.2.1,
 * section 6.1). The text says 0x00000000; the first is how the public clients read it, the second is the four octets.
 */
export const resyncNonces: readonly [Uint8Array, Uint8Array] = [Buffer.from('0x00000000'), Buffer.alloc(4)];

function encodeTrigger({ uiMode, serverInitiated, sessionId, serverId, version }: Notification): Buffer {
  const id = Buffer.from(serverId);
  if (id.length === 0 || id.length > 255) throw new PosternError('malformed', 'ServerID of 1 to 255 bytes');
  const header = Buffer.alloc(headerBytes);
  // version (10 bits), ui-mode (2), initiator (1), future use (27), session ID (16), length of the ServerID (8)
  const tenths = version === '1.3' ? versions.dm13 : versions.usual;
  header.writeUInt16BE((tenths << 6) | (uiMode << 4) | (serverInitiated ? 8 : 0), 0);
  header.writeUInt16BE(sessionId, 5);
  header[7] = id.length;
  return Buffer.concat([header, id]);
}

/** @throws {PosternError} `malformed` */
export function encodeNotification(notification: Notification, secret: string, nonce: Uint8Array): Buffer {
  const trigger = encodeTrigger(notification);
  return Buffer.concat([notificationDigest(notification.serverId, secret, nonce, trigger), trigger]);
}

/** @throws {PosternError} `malformed` */
export function decodeNotification(datagram: Uint8Array): SignedNotification {
  const bytes = Buffer.from(datagram);
  if (bytes.length < digestBytes + headerBytes + 1) throw new PosternError('malformed', 'Package #0 cut off');
  const trigger = bytes.subarray(digestBytes);
  const bits = trigger.readUInt16BE(0);
  if (!known.has(bits >> 6))
    throw new PosternError('unsupportedVersion', `Package #0 of version ${bits >> 6}`);
  const length = trigger[7]!;
  if (length === 0 || trigger.length < headerBytes + length)
    throw new PosternError('malformed', 'Package #0 cut off in the ServerID');
  const sessionId = trigger.readUInt16BE(5);
  if (sessionId === 0) throw new PosternError('malformed', 'Package #0 without a session ID');
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

/** Whether the server that knows this secret made it. */
export const isAuthentic = (notification: SignedNotification, secret: string, nonce: Uint8Array): boolean =>
  sameBytes(
    notification.digest,
    notificationDigest(notification.serverId, secret, nonce, notification.trigger),
  );

/** A session ID as a DM message writes it: hexadecimal, no leading zeros (OMA DM notification 1.2.1, section 6.2.2.10). */
export const sessionIdText = (sessionId: number): string => sessionId.toString(16).toUpperCase();
