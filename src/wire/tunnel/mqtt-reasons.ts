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

/** What an error of Node has beside its message. An error of OpenSSL has its reason without the place in the source. */
type NodeError = Error & { readonly code?: unknown; readonly reason?: unknown };

/** Codes of Node for a certificate whose authority is not known. */
const unknownAuthority = /^(DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED|UNABLE_TO_(GET|VERIFY))/;

/**
 * An error of the connection, in words. Some errors of Node have a code and no message. An alert of TLS says what the broker
 * thinks of this side, and the codes of a check what this side thinks of the broker.
 */
export function errorText(error: NodeError): string {
  const { code, message } = error;
  if (typeof code === 'number' && message.startsWith('Connection refused'))
    return `the broker refuses the connection: ${reasonText(code)}`;
  if (unknownAuthority.test(String(code)))
    return `no authority in mqtt.ca has signed the certificate of the broker (${message.split(';')[0]})`;
  if (/^CERT_(HAS_EXPIRED|NOT_YET_VALID)$/.test(String(code)))
    return `the certificate of the broker: ${message}, by the clock of this machine`;
  if (!String(code).startsWith('ERR_SSL_') || typeof error.reason !== 'string')
    return message || String(code ?? error);
  const alert = /alert (.+)/.exec(error.reason)?.[1];
  if (alert === undefined) return `TLS with the broker: ${error.reason}`;
  return `the broker refuses ${/cert|unknown ca/.test(alert) ? 'the client certificate' : 'TLS'}: ${alert}`;
}
