import type { SyncHdr, SyncmlMessage } from '../syncml/message.ts';

/** The two ends of a session as their headers name them. */
export interface Ends {
  /** This side: DevId of a client, ServerID of a server. */
  readonly local: string;
  readonly remote: string;
}

/** Bytes of a message that this engine takes, told to the other side. */
export const maxMessageBytes = 64 * 1024;

export function header(
  { local, remote }: Ends,
  name: string,
  sessionId: string,
  msgId: number,
  extra: Pick<SyncHdr, 'cred'>,
): SyncHdr {
  return {
    verDtd: '1.2',
    verProto: 'DM/1.2',
    sessionId,
    msgId,
    target: { locUri: remote },
    source: { locUri: local, locName: name },
    meta: { maxMsgSize: maxMessageBytes },
    ...extra,
  };
}

const versions = new Set(['DM/1.1', 'DM/1.2', 'DM/1.3']);

/** Whether this engine speaks the protocol version that the message names. */
export const isKnownVersion = ({ header }: SyncmlMessage): boolean => versions.has(header.verProto);
