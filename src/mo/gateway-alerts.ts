import { PosternError } from '../base/errors.ts';
import { hashedName } from '../base/hashed-name.ts';
import { forXml } from '../base/presentable.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import { AlertCode } from '../dm/status.ts';
import type { DdfElement } from '../wire/syncml/ddf-builder.ts';
import { parseDdf, textOf } from '../wire/syncml/ddf-xml.ts';
import { escapeXml } from '../wire/syncml/escape-xml.ts';
import type { Alert } from '../wire/syncml/message.ts';
import { nodeAt, type Vocabulary } from './vocabulary.ts';

/** How a device's account for the gateway came. */
export type Bootstrap = 'local' | 'server' | 'manual';

/** Why a device is gone: by itself, since it did not answer any more, or since it is attached elsewhere. */
export type DetachReason = 'left' | 'expired' | 'moved';

/** What the Device Attach Alert tells (GwMO section 8.4.2; the form of its data is ours, docs/bindings.md). */
export interface DeviceAttach {
  /** Rises with each alert of a gateway: a number seen before is the same event again. */
  readonly sequence: number;
  readonly deviceId: string;
  readonly mode: number;
  readonly bootstrap: Bootstrap;
  /** Of a child DM Gateway, which is a device to its parent (GwMO 1.1). */
  readonly isGateway?: boolean;
  /** The child gateway that the device is behind, if it is not behind the one that reports. */
  readonly via?: string;
  readonly manufacturer?: string;
  readonly model?: string;
}

export interface DeviceDetach {
  readonly sequence: number;
  readonly deviceId: string;
  readonly reason: DetachReason;
  readonly via?: string;
}

/** What a device tells its DM server when it is somewhere else (GwMO section 8.4.1). */
export interface LocationUpdate {
  /** Its own address, as a URI. */
  readonly address: string;
  /** ServerID of the gateway that it was attached to. */
  readonly gateway?: string;
}

/** What a gateway tells its DM server of a fault of its own that an operator must know. The alert is ours. */
export interface GatewayFault {
  /** What is at fault: `state` for rows of the state that could not be read. */
  readonly kind: string;
  /** In words. */
  readonly reason: string;
  /** The child gateways that the alert came through, the one nearest to the reporting gateway first. */
  readonly via?: string;
}

type Fields = Readonly<Record<string, string | undefined>>;

/** `<Name Seq="1"><Field>…</Field></Name>`. */
function write(name: string, sequence: number | undefined, fields: Fields): string {
  const inner = Object.entries(fields).map(([field, value]) =>
    value === undefined ? '' : `<${field}>${escapeXml(forXml(value))}</${field}>`,
  );
  return `<${name}${sequence === undefined ? '' : ` Seq="${sequence}"`}>${inner.join('')}</${name}>`;
}

function generic(type: string, locUri: string, data: string): Omit<OutgoingAlert, 'settled'> {
  return {
    code: AlertCode.Generic,
    items: [{ source: { locUri }, meta: { format: 'xml', type, mark: 'informational' }, data }],
  };
}

const recordUri = (vocabulary: Vocabulary, deviceId: string): string =>
  `${nodeAt(vocabulary, 'GwDeviceInventory', 'Records')}/${hashedName(deviceId)}`;

export const deviceAttachAlert = (vocabulary: Vocabulary, attach: DeviceAttach) =>
  generic(
    vocabulary.alerts.DeviceAttach,
    recordUri(vocabulary, attach.deviceId),
    write('DeviceAttach', attach.sequence, {
      DeviceID: attach.deviceId,
      Mode: String(vocabulary.modes[attach.mode]),
      ComponentType: attach.isGateway ? String(vocabulary.componentTypes[1]) : undefined,
      Gateway: attach.via,
      Bootstrap: attach.bootstrap,
      Man: attach.manufacturer,
      Mod: attach.model,
    }),
  );

export const deviceDetachAlert = (vocabulary: Vocabulary, detach: DeviceDetach) =>
  generic(
    vocabulary.alerts.DeviceDetach,
    recordUri(vocabulary, detach.deviceId),
    write('DeviceDetach', detach.sequence, {
      DeviceID: detach.deviceId,
      Gateway: detach.via,
      Reason: detach.reason,
    }),
  );

export const locationUpdateAlert = (vocabulary: Vocabulary, { address, gateway }: LocationUpdate) =>
  generic(
    vocabulary.alerts.LocationUpdate,
    './DevInfo',
    write('LocationUpdate', undefined, { Address: address, Gateway: gateway }),
  );

/** What a campaign of a gateway came to: the correlator is that of its start. */
export const campaignAlert = (
  type: string,
  uri: string,
  correlator: string | undefined,
  result: string,
): Omit<OutgoingAlert, 'settled'> => ({
  ...generic(type, uri, result),
  ...(correlator !== undefined && { correlator }),
});

export const gatewayFaultAlert = (vocabulary: Vocabulary, { kind, reason, via }: GatewayFault) =>
  generic(
    vocabulary.alerts.GatewayFault,
    './DevInfo',
    write('GatewayFault', undefined, { Kind: kind, Reason: reason, Gateway: via }),
  );

/** What a device tells its gateway when it leaves: nobody remembers a number of it. */
export const leavingAlert = (vocabulary: Vocabulary, deviceId: string) =>
  generic(
    vocabulary.alerts.DeviceDetach,
    './DevInfo',
    write('DeviceDetach', 0, { DeviceID: deviceId, Reason: 'left' }),
  );

/** OMA DM 1.2.1 wants the type with a prefix, and those who send it leave it away: both are taken. */
const typePrefix = /^(?:Reversed-Domain-Name|Content-Type):\s*/i;

export const isAlertOf = ({ data, items }: Alert, type: string): boolean =>
  data === AlertCode.Generic && items[0]?.meta?.type?.replace(typePrefix, '') === type;

/** @throws {PosternError} `malformed` */
function read({ items }: Alert, name: string): { root: DdfElement; sequence: number } {
  const text = String(items[0]?.data ?? '');
  const root = parseDdf(text);
  const sequence = /^<\w+ Seq="(\d{1,15})">/.exec(text)?.[1];
  if (root.tag !== name) throw new PosternError('malformed', `no ${name} in the alert`);
  return { root, sequence: Number(sequence ?? Number.NaN) };
}

/** @throws {PosternError} `malformed` */
export function readDeviceAttach({ modes, componentTypes }: Vocabulary, alert: Alert): DeviceAttach {
  const { root, sequence } = read(alert, 'DeviceAttach');
  const deviceId = textOf(root, 'DeviceID');
  const mode = modes.indexOf(Number(textOf(root, 'Mode')));
  const bootstrap = textOf(root, 'Bootstrap');
  if (!Number.isInteger(sequence) || !deviceId || mode < 0)
    throw new PosternError('malformed', 'no Device Attach Alert');
  const manufacturer = textOf(root, 'Man');
  const model = textOf(root, 'Mod');
  const via = textOf(root, 'Gateway');
  return {
    sequence,
    deviceId,
    mode,
    ...(Number(textOf(root, 'ComponentType') ?? componentTypes[0]) === componentTypes[1] && {
      isGateway: true,
    }),
    ...(via !== undefined && { via }),
    bootstrap: bootstrap === 'server' || bootstrap === 'manual' ? bootstrap : 'local',
    ...(manufacturer !== undefined && { manufacturer }),
    ...(model !== undefined && { model }),
  };
}

/** @throws {PosternError} `malformed` */
export function readDeviceDetach(alert: Alert): DeviceDetach {
  const { root, sequence } = read(alert, 'DeviceDetach');
  const deviceId = textOf(root, 'DeviceID');
  const reason = textOf(root, 'Reason');
  if (!Number.isInteger(sequence) || !deviceId || !isReason(reason))
    throw new PosternError('malformed', 'no Device Detach Alert');
  const via = textOf(root, 'Gateway');
  return { sequence, deviceId, reason, ...(via !== undefined && { via }) };
}

const isReason = (text: string | undefined): text is DetachReason =>
  text === 'left' || text === 'expired' || text === 'moved';

/** @throws {PosternError} `malformed` */
export function readGatewayFault(alert: Alert): GatewayFault {
  const { root } = read(alert, 'GatewayFault');
  const kind = textOf(root, 'Kind');
  const reason = textOf(root, 'Reason');
  const via = textOf(root, 'Gateway');
  if (!kind || !reason) throw new PosternError('malformed', 'no Gateway Fault Alert');
  return { kind, reason, ...(via !== undefined && { via }) };
}

/** @throws {PosternError} `malformed` */
export function readLocationUpdate(alert: Alert): LocationUpdate {
  const { root } = read(alert, 'LocationUpdate');
  const address = textOf(root, 'Address');
  const gateway = textOf(root, 'Gateway');
  if (!address) throw new PosternError('malformed', 'no Location Update Alert');
  return { address, ...(gateway !== undefined && { gateway }) };
}
