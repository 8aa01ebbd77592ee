import { PosternError } from '../base/errors.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import { AlertCode } from '../dm/status.ts';
import type { DdfElement } from '../syncml/ddf-builder.ts';
import { parseDdf, textOf } from '../syncml/ddf-xml.ts';
import { escapeXml } from '../syncml/escape-xml.ts';
import type { Alert } from '../syncml/message.ts';
import { recordName } from './gw-device-inventory.ts';
import { AlertType } from './identifiers.ts';

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
  readonly manufacturer?: string;
  readonly model?: string;
}

export interface DeviceDetach {
  readonly sequence: number;
  readonly deviceId: string;
  readonly reason: DetachReason;
}

/** What a device tells its DM server when it is somewhere else (GwMO section 8.4.1). */
export interface LocationUpdate {
  /** Its own address, as a URI. */
  readonly address: string;
  /** ServerID of the gateway that it was attached to. */
  readonly gateway?: string;
}

type Fields = Readonly<Record<string, string | undefined>>;

/** `<Name Seq="1"><Field>…</Field></Name>`. */
function write(name: string, sequence: number | undefined, fields: Fields): string {
  const inner = Object.entries(fields).map(([field, value]) =>
    value === undefined ? '' : `<${field}>${escapeXml(value)}</${field}>`,
  );
  return `<${name}${sequence === undefined ? '' : ` Seq="${sequence}"`}>${inner.join('')}</${name}>`;
}

function generic(type: string, locUri: string, data: string): Omit<OutgoingAlert, 'settled'> {
  return {
    code: AlertCode.Generic,
    items: [{ source: { locUri }, meta: { format: 'xml', type, mark: 'informational' }, data }],
  };
}

const recordUri = (deviceId: string): string => `./GwDeviceInventory/Records/${recordName(deviceId)}`;

export const deviceAttachAlert = (attach: DeviceAttach): Omit<OutgoingAlert, 'settled'> =>
  generic(
    AlertType.DeviceAttach,
    recordUri(attach.deviceId),
    write('DeviceAttach', attach.sequence, {
      DeviceID: attach.deviceId,
      Mode: String(attach.mode),
      Bootstrap: attach.bootstrap,
      Man: attach.manufacturer,
      Mod: attach.model,
    }),
  );

export const deviceDetachAlert = ({ sequence, deviceId, reason }: DeviceDetach) =>
  generic(
    AlertType.DeviceDetach,
    recordUri(deviceId),
    write('DeviceDetach', sequence, { DeviceID: deviceId, Reason: reason }),
  );

export const locationUpdateAlert = ({ address, gateway }: LocationUpdate) =>
  generic(
    AlertType.LocationUpdate,
    './DevInfo',
    write('LocationUpdate', undefined, { Address: address, Gateway: gateway }),
  );

/** What a fan-out came to: the correlator is that of its start. */
export const commandFanoutAlert = (name: string, correlator: string | undefined, result: string) => ({
  ...generic(AlertType.CommandFanout, `./GwFanout/Fanout/${name}`, result),
  ...(correlator !== undefined && { correlator }),
});

/** Of a device that leaves by itself, to its gateway. */
export const leavingAlert = (deviceId: string) =>
  generic(
    AlertType.DeviceDetach,
    './DevInfo',
    write('DeviceDetach', 0, { DeviceID: deviceId, Reason: 'left' }),
  );

export const isAlertOf = ({ data, items }: Alert, type: string): boolean =>
  data === AlertCode.Generic && items[0]?.meta?.type === type;

/** @throws {PosternError} `malformed` */
function read({ items }: Alert, name: string): { root: DdfElement; sequence: number } {
  const text = String(items[0]?.data ?? '');
  const root = parseDdf(text);
  const sequence = /^<\w+ Seq="(\d{1,15})">/.exec(text)?.[1];
  if (root.tag !== name) throw new PosternError('malformed', `no ${name} in the alert`);
  return { root, sequence: Number(sequence ?? Number.NaN) };
}

/** @throws {PosternError} `malformed` */
export function readDeviceAttach(alert: Alert): DeviceAttach {
  const { root, sequence } = read(alert, 'DeviceAttach');
  const deviceId = textOf(root, 'DeviceID');
  const mode = Number(textOf(root, 'Mode'));
  const bootstrap = textOf(root, 'Bootstrap');
  if (!Number.isInteger(sequence) || !deviceId || !Number.isInteger(mode))
    throw new PosternError('malformed', 'no Device Attach Alert');
  const manufacturer = textOf(root, 'Man');
  const model = textOf(root, 'Mod');
  return {
    sequence,
    deviceId,
    mode,
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
  return { sequence, deviceId, reason };
}

const isReason = (text: string | undefined): text is DetachReason =>
  text === 'left' || text === 'expired' || text === 'moved';

/** @throws {PosternError} `malformed` */
export function readLocationUpdate(alert: Alert): LocationUpdate {
  const { root } = read(alert, 'LocationUpdate');
  const address = textOf(root, 'Address');
  const gateway = textOf(root, 'Gateway');
  if (!address) throw new PosternError('malformed', 'no Location Update Alert');
  return { address, ...(gateway !== undefined && { gateway }) };
}
