import type { SyncHdr, SyncmlMessage } from '../wire/syncml/message.ts';

/** The two ends of a session as their headers name them. */
export interface Ends {
  /** This side: DevId of a client, ServerID of a server. */
  readonly local: string;
  readonly remote: string;
}

/** Versions of the protocol that this engine speaks, with the version of the DTD that each goes with. */
const dtdOf = { 'DM/1.1': '1.1', 'DM/1.2': '1.2', 'DM/1.3': '1.2' } as const;
export type ProtocolVersion = keyof typeof dtdOf;

export const isProtocolVersion = (text: string): text is ProtocolVersion => Object.hasOwn(dtdOf, text);

/** Bytes of a message, and of an object in several messages, that this engine takes; told to the other side. */
export const ownLimits = { maxMsgSize: 64 * 1024, maxObjSize: 1024 * 1024 } as const;

export interface HeaderFields {
  readonly ends: Ends;
  readonly name: string;
  readonly sessionId: string;
  readonly version: ProtocolVersion;
}

export function header(
  { ends: { local, remote }, name, sessionId, version }: HeaderFields,
  msgId: number,
  extra: Pick<SyncHdr, 'cred'>,
): SyncHdr {
  return {
    verDtd: dtdOf[version],
    verProto: version,
    sessionId,
    msgId,
    target: { locUri: remote },
    source: { locUri: local, locName: name },
    meta: ownLimits,
    ...extra,
  };
}

/** Whether this engine speaks the protocol version that the message names. */
export const isKnownVersion = ({ header }: SyncmlMessage): boolean => isProtocolVersion(header.verProto);
