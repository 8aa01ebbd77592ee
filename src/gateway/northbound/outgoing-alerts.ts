import type { OutgoingAlert } from '../../dm/client-session.ts';
import { firmwareAlert } from '../../mo/firmware-branch.ts';
import {
  campaignAlert,
  type DeviceAttach,
  type DeviceDetach,
  type DevicePresence,
  deviceAttachAlert,
  deviceDetachAlert,
  devicePresenceAlert,
  type GatewayFault,
  gatewayFaultAlert,
} from '../../mo/gateway-alerts.ts';
import type { Vocabulary } from '../../mo/vocabulary.ts';
import { encodeMessage } from '../../wire/syncml/codec.ts';
import type { OutboxEntry } from '../store/outbox.ts';
import { type FirmwareUpdateBody, type ResultBody, resultAlerts } from './reports.ts';

/** Makes the alert of an outbox entry. */
export function alertOf(
  vocabulary: Vocabulary,
  { kind, epoch, sequence, run, deviceId, body }: OutboxEntry,
): Omit<OutgoingAlert, 'settled'> {
  const parsed = JSON.parse(body) as object;
  // A body may hold the number that a child gateway gave.
  const fields = { ...parsed, epoch, sequence, run, deviceId } as object;
  if (kind === 'device-attach') return deviceAttachAlert(vocabulary, fields as DeviceAttach);
  if (kind === 'device-detach') return deviceDetachAlert(vocabulary, fields as DeviceDetach);
  if (kind === 'device-presence') return devicePresenceAlert(vocabulary, fields as DevicePresence);
  if (kind === 'gateway-fault') return gatewayFaultAlert(vocabulary, fields as GatewayFault);
  if (kind === 'firmware-update') {
    const { operation, correlator, result } = parsed as FirmwareUpdateBody;
    return firmwareAlert(operation, correlator, result);
  }
  const { uri, correlator, result } = parsed as ResultBody;
  return campaignAlert(vocabulary.alerts[resultAlerts[kind]], uri, correlator, result);
}

/** Text that each coding can hold. */
const plain = /^[\x20-\x7e]*$/;
/** Characters of the data of an alert below which its size is no matter. */
const plainLength = 4096;

/** @throws {PosternError} when the alert has no form in this coding, or is too large */
export function demandEncodable(
  { code, items, correlator }: Omit<OutgoingAlert, 'settled'>,
  mediaType: string,
): void {
  // Nearly all alerts are a short text of ASCII. To encode each of them twice would cost more than the rest of an alert.
  const [item] = items;
  const texts = [item?.source?.locUri, item?.data, correlator].filter((text) => text !== undefined);
  if (
    items.length === 1 &&
    texts.every((text) => typeof text === 'string' && text.length < plainLength && plain.test(text))
  )
    return;
  const command = {
    name: 'Alert' as const,
    cmdId: '1',
    data: code,
    items,
    ...(correlator !== undefined && { correlator }),
  };
  const header = {
    ...{ verDtd: '1.2', verProto: 'DM/1.2', sessionId: '1', msgId: 1 },
    ...{ target: { locUri: '' }, source: { locUri: '' } },
  };
  encodeMessage({ header, commands: [command], final: true }, mediaType);
}
