import { PosternError } from '../base/errors.ts';
import { hashedName } from '../base/hashed-name.ts';
import { forXml, presentable } from '../base/presentable.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import { AlertCode } from '../dm/status.ts';
import { isDeviceId } from '../wire/resources.ts';
import type { DdfElement } from '../wire/syncml/ddf-builder.ts';
import { parseDdf, textOf } from '../wire/syncml/ddf-xml.ts';
import { escapeXml } from '../wire/syncml/escape-xml.ts';
import type { Alert } from '../wire/syncml/message.ts';
import { type AlertNumber, numberFields, readNumber } from './alert-number.ts';
import {
  type BootstrapOrigin,
  bootstrapOrigins,
  type DeviceState,
  deviceStates,
  type GatewayMode,
  gatewayModes,
} from './device-record.ts';
import { nodeAt, type Vocabulary } from './vocabulary.ts';

/**
 * Why a device was detached: it left, or it attached to another gateway. Postern 0.1.0 also detached a device that did not
 * answer (`expired`); its alerts may still wait in an outbox, and a child gateway may be of that version.
 */
export type DetachReason = 'left' | 'expired' | 'moved';

/** Content of the Device Attach Alert (GwMO section 8.4.2; the form of its data is ours, docs/bindings.md). */
export interface DeviceAttach extends AlertNumber {
  readonly deviceId: string;
  readonly mode: GatewayMode;
  readonly bootstrap: BootstrapOrigin;
  /** Set for a child DM Gateway, which is a device to its parent (GwMO 1.1). */
  readonly isGateway?: boolean;
  /**
   * DevIds of the child gateways between the reporting gateway and the device, the nearest one first, joined by `/`.
   */
  readonly via?: string;
  readonly manufacturer?: string;
  readonly model?: string;
}

/** Content of the Device Detach Alert. `via` is as in `DeviceAttach`. */
export interface DeviceDetach extends AlertNumber {
  readonly deviceId: string;
  readonly reason: DetachReason;
  readonly via?: string;
}

/**
 * Content of the Device Presence Alert: whether the gateway can reach an attached device. The alert is Postern's own
 * (docs/gwmo.md), because GwMO has no state between attached and detached. `via` is as in `DeviceAttach`.
 */
export interface DevicePresence extends AlertNumber {
  readonly deviceId: string;
  readonly state: DeviceState;
  /** Why the device is unreachable, as one line for a person. */
  readonly reason?: string;
  /** As in the device's record. */
  readonly lastSeen: number;
  readonly via?: string;
}

/** Content of the alert by which a device tells its DM server that it has moved (GwMO section 8.4.1). */
export interface LocationUpdate {
  /** Address of the device, as a URI. */
  readonly address: string;
  /** ServerID of the gateway that it was attached to. */
  readonly gateway?: string;
}

/**
 * Content of the Gateway Fault Alert: a fault of the gateway itself that an operator must know. The alert is Postern's own.
 * The path in `via` is as in `DeviceAttach`, and ends with the gateway that has the fault.
 */
export interface GatewayFault extends AlertNumber {
  /**
   * What is at fault: `state` for rows of the state that could not be read; `problem` for what lasts, until `problem-ended`. A
   * child gateway tells its parent these two without a number, because its disk may be the problem.
   */
  readonly kind: string;
  /** For a person. */
  readonly reason: string;
  readonly via?: string;
}

/** Whether a fault lasts, or has ended. The latest of a gateway counts. */
export const isProblem = ({ kind }: Pick<GatewayFault, 'kind'>): boolean =>
  kind === 'problem' || kind === 'problem-ended';

type Fields = Readonly<Record<string, string | undefined>>;

/** Writes the data of an alert, such as `<Name Seq="1"><Field>…</Field></Name>`. */
function write(name: string, number: AlertNumber | undefined, fields: Fields): string {
  const all = { ...(number && numberFields(number)), ...fields };
  const inner = Object.entries(all).map(([field, value]) =>
    value === undefined ? '' : `<${field}>${escapeXml(forXml(value))}</${field}>`,
  );
  return `<${name}${number === undefined ? '' : ` Seq="${number.sequence}"`}>${inner.join('')}</${name}>`;
}

function generic(type: string, locUri: string, data: string): Omit<OutgoingAlert, 'settled'> {
  return {
    code: AlertCode.Generic,
    items: [{ source: { locUri }, meta: { format: 'xml', type, mark: 'informational' }, data }],
  };
}

const recordUri = (vocabulary: Vocabulary, deviceId: string): string =>
  `${nodeAt(vocabulary, 'GwDeviceInventory', 'Records')}/${hashedName(deviceId)}`;

/** The alert that reports an attached device. */
export const deviceAttachAlert = (vocabulary: Vocabulary, attach: DeviceAttach) =>
  generic(
    vocabulary.alerts.DeviceAttach,
    recordUri(vocabulary, attach.deviceId),
    write('DeviceAttach', attach, {
      DeviceID: attach.deviceId,
      Mode: String(vocabulary.modes[attach.mode]),
      ComponentType: attach.isGateway ? String(vocabulary.componentTypes[1]) : undefined,
      Gateway: attach.via,
      Bootstrap: attach.bootstrap,
      Man: attach.manufacturer,
      Mod: attach.model,
    }),
  );

/** The alert that reports a detached device. */
export const deviceDetachAlert = (vocabulary: Vocabulary, detach: DeviceDetach) =>
  generic(
    vocabulary.alerts.DeviceDetach,
    recordUri(vocabulary, detach.deviceId),
    write('DeviceDetach', detach, {
      DeviceID: detach.deviceId,
      Gateway: detach.via,
      Reason: detach.reason,
    }),
  );

/** The alert that a device has become unreachable, or is reached again. */
export const devicePresenceAlert = (vocabulary: Vocabulary, presence: DevicePresence) =>
  generic(
    vocabulary.alerts.DevicePresence,
    recordUri(vocabulary, presence.deviceId),
    write('DevicePresence', presence, {
      DeviceID: presence.deviceId,
      Gateway: presence.via,
      State: presence.state,
      Reason: presence.reason,
      LastSeen: new Date(presence.lastSeen).toISOString(),
    }),
  );

/** The alert by which a device reports that it has moved. */
export const locationUpdateAlert = (vocabulary: Vocabulary, { address, gateway }: LocationUpdate) =>
  generic(
    vocabulary.alerts.LocationUpdate,
    './DevInfo',
    write('LocationUpdate', undefined, { Address: address, Gateway: gateway }),
  );

/**
 * The alert that reports the result of a campaign.
 * @param type alert type, by the vocabulary
 * @param correlator correlator of the Exec that started the campaign
 */
export const campaignAlert = (
  type: string,
  uri: string,
  correlator: string | undefined,
  result: string,
): Omit<OutgoingAlert, 'settled'> => ({
  ...generic(type, uri, result),
  ...(correlator !== undefined && { correlator }),
});

/** The alert that reports a fault of the gateway itself. */
export const gatewayFaultAlert = (vocabulary: Vocabulary, fault: GatewayFault) =>
  generic(
    vocabulary.alerts.GatewayFault,
    './DevInfo',
    write('GatewayFault', fault, {
      Kind: fault.kind,
      Reason: fault.reason,
      Gateway: fault.via,
    }),
  );

/**
 * The alert by which a device tells its gateway that it leaves. Its sequence number is 0: the gateway does not compare
 * it.
 */
export const leavingAlert = (vocabulary: Vocabulary, deviceId: string) =>
  generic(
    vocabulary.alerts.DeviceDetach,
    './DevInfo',
    write('DeviceDetach', { sequence: 0 }, { DeviceID: deviceId, Reason: 'left' }),
  );

/** OMA DM 1.2.1 asks for a prefix before the type, but clients leave it out. Both forms are accepted. */
const typePrefix = /^(?:Reversed-Domain-Name|Content-Type):\s*/i;

/** Whether this is a generic alert of this type. */
export const isAlertOf = ({ data, items }: Alert, type: string): boolean =>
  data === AlertCode.Generic && items[0]?.meta?.type?.replace(typePrefix, '') === type;

/**
 * Reads the data of an alert whose root element has this name.
 * @throws {PosternError} `malformed`
 */
function read({ items }: Alert, name: string): { root: DdfElement; sequence: string | undefined } {
  const text = String(items[0]?.data ?? '');
  const root = parseDdf(text);
  if (root.tag !== name) throw new PosternError('malformed', `no ${name} in the alert`);
  return { root, sequence: /^<\w+ Seq="(\d{1,15})">/.exec(text)?.[1] };
}

/**
 * Reads a Device Attach Alert.
 * @throws {PosternError} `malformed`
 */
export function readDeviceAttach({ modes, componentTypes }: Vocabulary, alert: Alert): DeviceAttach {
  const { root, sequence } = read(alert, 'DeviceAttach');
  const deviceId = textOf(root, 'DeviceID');
  const mode = gatewayModes[modes.indexOf(Number(textOf(root, 'Mode')))];
  const bootstrap = textOf(root, 'Bootstrap');
  if (!isDeviceId(deviceId) || mode === undefined)
    throw new PosternError('malformed', 'not a Device Attach Alert');
  const manufacturer = textOf(root, 'Man');
  const model = textOf(root, 'Mod');
  const via = textOf(root, 'Gateway');
  return {
    ...readNumber(root, sequence),
    deviceId,
    mode,
    ...(Number(textOf(root, 'ComponentType') ?? componentTypes[0]) === componentTypes[1] && {
      isGateway: true,
    }),
    ...(via !== undefined && { via }),
    bootstrap: bootstrapOrigins.find((origin) => origin === bootstrap) ?? 'local',
    ...(manufacturer !== undefined && { manufacturer }),
    ...(model !== undefined && { model }),
  };
}

/**
 * Reads a Device Detach Alert.
 * @throws {PosternError} `malformed`
 */
export function readDeviceDetach(alert: Alert): DeviceDetach {
  const { root, sequence } = read(alert, 'DeviceDetach');
  const deviceId = textOf(root, 'DeviceID');
  const reason = textOf(root, 'Reason');
  if (!deviceId || !isReason(reason)) throw new PosternError('malformed', 'not a Device Detach Alert');
  const via = textOf(root, 'Gateway');
  return {
    ...readNumber(root, sequence),
    deviceId,
    reason,
    ...(via !== undefined && { via }),
  };
}

const isReason = (text: string | undefined): text is DetachReason =>
  text === 'left' || text === 'expired' || text === 'moved';

/**
 * Reads a Gateway Fault Alert.
 * @throws {PosternError} `malformed`
 */
export function readGatewayFault(alert: Alert): GatewayFault {
  const { root, sequence } = read(alert, 'GatewayFault');
  const kind = textOf(root, 'Kind');
  const reason = textOf(root, 'Reason');
  const via = textOf(root, 'Gateway');
  if (!kind || !reason) throw new PosternError('malformed', 'not a Gateway Fault Alert');
  return {
    ...readNumber(root, sequence),
    kind: presentable(kind, reasonBytes),
    reason: presentable(reason, reasonBytes),
    ...(via !== undefined && { via }),
  };
}

/**
 * Reads a Device Presence Alert.
 * @throws {PosternError} `malformed`
 */
export function readDevicePresence(alert: Alert): DevicePresence {
  const { root, sequence } = read(alert, 'DevicePresence');
  const deviceId = textOf(root, 'DeviceID');
  const state = textOf(root, 'State');
  const lastSeen = Date.parse(textOf(root, 'LastSeen') ?? '');
  if (!deviceId || !isState(state) || Number.isNaN(lastSeen))
    throw new PosternError('malformed', 'not a Device Presence Alert');
  const reason = textOf(root, 'Reason');
  const via = textOf(root, 'Gateway');
  return {
    ...readNumber(root, sequence),
    deviceId,
    state,
    lastSeen,
    ...(reason !== undefined && { reason: presentable(reason, reasonBytes) }),
    ...(via !== undefined && { via }),
  };
}

const isState = (text: string | undefined): text is DeviceState =>
  deviceStates.some((state) => state === text);

/** Most bytes of a reason that is read. */
const reasonBytes = 512;

/**
 * Reads a Location Update Alert.
 * @throws {PosternError} `malformed`
 */
export function readLocationUpdate(alert: Alert): LocationUpdate {
  const { root } = read(alert, 'LocationUpdate');
  const address = textOf(root, 'Address');
  const gateway = textOf(root, 'Gateway');
  if (!address) throw new PosternError('malformed', 'not a Location Update Alert');
  return { address, ...(gateway !== undefined && { gateway }) };
}
