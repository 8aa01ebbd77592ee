import type { SyncHdr, SyncmlMessage } from '../wire/syncml/message.ts';
import { DmStatus } from './status.ts';

/** The two ends of a session as message headers name them. */
export interface Ends {
  /** This side: DevId of a client, ServerID of a server. */
  readonly local: string;
  /** The other side. */
  readonly remote: string;
}

/** Protocol versions that this engine speaks, each with its DTD version. */
const dtdOf = { 'DM/1.1': '1.1', 'DM/1.2': '1.2', 'DM/1.3': '1.2' } as const;
export type ProtocolVersion = keyof typeof dtdOf;
const dtds: ReadonlySet<string> = new Set(Object.values(dtdOf));

export const isProtocolVersion = (text: string): text is ProtocolVersion => Object.hasOwn(dtdOf, text);

/**
 * Largest message and largest object that this engine accepts, in bytes. Each header announces them to the other side.
 */
export const ownLimits = { maxMsgSize: 64 * 1024, maxObjSize: 1024 * 1024 } as const;

/** What the headers of one side have in common. */
export interface HeaderFields {
  readonly ends: Ends;
  /** Name by which this side proves itself (LocName). */
  readonly name: string;
  readonly sessionId: string;
  readonly version: ProtocolVersion;
  /** Largest message that this side accepts in the session, in bytes. */
  readonly maxMsgSize: number;
}

/** Builds the header of a message. `extra` holds the credential and the RespURI, where they are sent. */
export function header(
  { ends: { local, remote }, name, sessionId, version, maxMsgSize }: HeaderFields,
  msgId: number,
  extra: Pick<SyncHdr, 'cred' | 'respUri'>,
): SyncHdr {
  return {
    verDtd: dtdOf[version],
    verProto: version,
    sessionId,
    msgId,
    target: { locUri: remote },
    source: { locUri: local, locName: name },
    meta: { ...ownLimits, maxMsgSize },
    ...extra,
  };
}

/**
 * Status for a message in a version that this engine does not speak: 513 for the protocol, 505 for the DTD (representation
 * protocol 1.2, section 10). Undefined for one that it speaks.
 */
export function unknownVersion({ header: { verDtd, verProto } }: SyncmlMessage): number | undefined {
  if (!isProtocolVersion(verProto)) return DmStatus.UnsupportedProtocol;
  return dtds.has(verDtd) ? undefined : DmStatus.UnsupportedDtd;
}
