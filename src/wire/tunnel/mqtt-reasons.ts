import { type IDisconnectPacket, ReasonCodes } from 'mqtt';
import { presentable } from '../../base/presentable.ts';

/** Reason codes of MQTT 5 (section 2.4) on which Postern decides, and the one of MQTT 3.1.1 for the same (section 3.2.2.3). */
export const Reason = {
  UnacceptableVersion: 1,
  NoMatchingSubscribers: 0x10,
  UnsupportedVersion: 0x84,
  NotAuthorized: 0x87,
  SessionTakenOver: 0x8e,
  PacketTooLarge: 0x95,
  QuotaExceeded: 0x97,
} as const;

/** A reason code in words, with its number where MQTT 5 has it. */
export function reasonText(code: number): string {
  const words = (ReasonCodes as Readonly<Record<number, string>>)[code] ?? 'unknown reason';
  return code < 0x80 ? words : `${words} (0x${code.toString(16).toUpperCase()})`;
}

/** Why the broker disconnected a client, in words. */
export function disconnectText({ reasonCode = 0, properties }: IDisconnectPacket, clientId: string): string {
  const detail = properties?.reasonString;
  const where = properties?.serverReference;
  return [
    `the broker ended the connection: ${reasonText(reasonCode)}`,
    reasonCode === Reason.SessionTakenOver && `another client connected as ${clientId}`,
    detail !== undefined && presentable(detail),
    where !== undefined && `the broker names another one: ${presentable(where)}`,
  ]
    .filter((part) => typeof part === 'string')
    .join('; ');
}

/** An error of the connection, in words. Some errors of Node have a code and no message. */
export function errorText(error: Error & { readonly code?: unknown }): string {
  if (typeof error.code === 'number' && error.message.startsWith('Connection refused'))
    return `the broker refuses the connection: ${reasonText(error.code)}`;
  return error.message || String(error.code ?? error);
}
