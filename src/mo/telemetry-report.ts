import { fromCbor, toCbor } from '../base/cbor.ts';
import { lwm2mProfile } from '../base/cbor-profile.ts';
import { PosternError } from '../base/errors.ts';
import type { OutgoingAlert } from '../dm/client-session.ts';
import { AlertCode } from '../dm/status.ts';
import { isDeviceId } from '../wire/resources.ts';
import type { Alert } from '../wire/syncml/message.ts';
import { isEpoch } from '../wire/tunnel/gateway-state.ts';
import type { Vocabulary } from './vocabulary.ts';

/** A value as a device says it. */
export type TelemetryValue = string | number | bigint | boolean | Uint8Array;

/** One value of one device. */
export interface DeviceValue {
  readonly device: string;
  /** Such as `/3303/0/5700` or `/Sensor/Temp`. */
  readonly path: string;
  readonly value: TelemetryValue;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/** What one Telemetry Report Alert says. */
export interface TelemetryReport {
  /** The run of the gateway in which the report was made. */
  readonly epoch: string;
  /** Rises with each report of an epoch. A number that was received before means the same report. */
  readonly sequence: number;
  /** Values that the gateway had to drop since the report before. */
  readonly dropped: number;
  readonly values: readonly DeviceValue[];
}

/** Most bytes of a path, and of a text or octets; most values of one report. */
export const valueLimits = { path: 255, value: 8192, report: 1024 } as const;

/** Labels of SenML CBOR (RFC 8428, section 6). The others are Postern's own: whoever does not know them ignores them (section 4.4). */
const label = { bt: -3, bn: -2, n: 0, v: 2, vs: 3, vb: 4, t: 6, vd: 8 } as const;
const own = { epoch: 'epoch', sequence: 'seq', dropped: 'dropped' } as const;

/** Seconds below which a time is relative to now (RFC 8428, section 4.5.3). A board without a battery starts in 1970. */
const absolute = 2 ** 28;

const valueLabel = (value: TelemetryValue): number => {
  if (typeof value === 'string') return label.vs;
  if (typeof value === 'boolean') return label.vb;
  return value instanceof Uint8Array ? label.vd : label.v;
};

/** Octets that a value takes in a report at most, without its device. Octets of the name of a device come with each device. */
export const sizeOfValue = ({ path, value }: Pick<DeviceValue, 'path' | 'value'>): number =>
  Buffer.byteLength(path) +
  (typeof value === 'string' ? Buffer.byteLength(value) : value instanceof Uint8Array ? value.length : 9) +
  24;
export const sizeOfDevice = (device: string): number => Buffer.byteLength(device) + 4;
/** Octets of what a report says besides its values. */
export const reportOverhead = 96;

/**
 * Writes the data of a report: SenML CBOR (RFC 8428). The base name is the DevId, and the name is the path. The first record has the
 * number of the report.
 * @param now milliseconds since 1970 by the gateway's clock
 */
export function encodeReport({ epoch, sequence, dropped, values }: TelemetryReport, now: number): Uint8Array {
  const base = values.reduce((latest, { at }) => Math.max(latest, Math.floor(at / 1000)), 0);
  const isSet = base >= absolute;
  const records: Map<number | string, unknown>[] = [];
  for (const [device, ofDevice] of Map.groupBy(values, (each) => each.device))
    for (const [at, { path, value, at: time }] of ofDevice.entries()) {
      const seconds = Math.round(time - (isSet ? base * 1000 : now)) / 1000;
      records.push(
        new Map<number | string, unknown>([
          ...(at === 0 ? [[label.bn, device] as const] : []),
          [label.n, path],
          [valueLabel(value), value],
          ...(seconds === 0 ? [] : [[label.t, seconds] as const]),
        ]),
      );
    }
  const [first, ...rest] = records;
  const head = new Map<number | string, unknown>([
    ...(isSet ? [[label.bt, base] as const] : []),
    [own.epoch, epoch],
    [own.sequence, sequence],
    ...(dropped > 0 ? [[own.dropped, dropped] as const] : []),
    ...(first ?? []),
  ]);
  return toCbor([head, ...rest]);
}

/**
 * A report as it is sent some time after it was made. Where the gateway had not the time then, its times are relative to now.
 * @param age milliseconds since it was made
 */
export function agedReport(report: Uint8Array, age: number): Uint8Array {
  const [head, ...rest] = fromCbor(report, lwm2mProfile, 'a telemetry report') as readonly Map<
    unknown,
    unknown
  >[];
  if (!head || head.has(label.bt)) return report;
  return toCbor([new Map([...head, [label.bt, -age / 1000]]), ...rest]);
}

/** Whether a wall clock has been set, in milliseconds since 1970. */
export const isDate = (wall: number): boolean => wall >= absolute * 1000;

const bad = (why: string) => new PosternError('malformed', `telemetry report: ${why}`);

const count = (value: unknown, what: string): number => {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw bad(`no ${what}`);
  return value;
};

/**
 * Reads the data of a report.
 * @param now milliseconds since 1970 by the clock of the reader: a time without a date is relative to it
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function decodeReport(body: Uint8Array, now: number): TelemetryReport {
  const records = fromCbor(body, lwm2mProfile, 'a telemetry report');
  const list: readonly unknown[] = Array.isArray(records) ? records : [];
  if (list.length > valueLimits.report)
    throw new PosternError('tooLarge', `a telemetry report of more than ${valueLimits.report} values`);
  const [head] = list;
  if (!(head instanceof Map)) throw bad('no list of records');
  const epoch: unknown = head.get(own.epoch);
  if (typeof epoch !== 'string' || !isEpoch(epoch)) throw bad('no epoch');
  const sequence = count(head.get(own.sequence), 'number');
  const dropped = count(head.get(own.dropped) ?? 0, 'number of dropped values');
  let device: unknown;
  let base: unknown = 0;
  const values = list.flatMap((record): DeviceValue[] => {
    if (!(record instanceof Map)) throw bad('a record is not a map');
    device = record.get(label.bn) ?? device;
    base = record.get(label.bt) ?? base;
    const path: unknown = record.get(label.n);
    if (path === undefined) return [];
    const [value] = [label.v, label.vs, label.vb, label.vd]
      .map((key): unknown => record.get(key))
      .filter(isValue);
    const seconds = Number(base) + Number(record.get(label.t) ?? 0);
    if (typeof device !== 'string' || !isDeviceId(device)) throw bad('a base name is no DevId');
    if (typeof path !== 'string' || !isPath(path)) throw bad('a name is no path');
    if (value === undefined || !Number.isFinite(seconds)) throw bad('a record without a value or a time');
    const at = Math.round(seconds * 1000) + (seconds < absolute ? now : 0);
    return [{ device, path, value, at: Math.max(0, at) }];
  });
  return { epoch, sequence, dropped, values };
}

const isPath = (text: string): boolean =>
  text.startsWith('/') && Buffer.byteLength(text) <= valueLimits.path && !/\p{C}/u.test(text);

const isValue = (value: unknown): value is TelemetryValue =>
  (typeof value === 'number' && Number.isFinite(value)) ||
  ['string', 'boolean'].includes(typeof value) ||
  (typeof value === 'bigint' &&
    (value === BigInt.asIntN(64, value) || value === BigInt.asUintN(64, value))) ||
  value instanceof Uint8Array;

/**
 * Whether a report can hold a value. Whoever reads a report with one that it cannot, such as a float that is no number, refuses the
 * values of all other devices with it.
 */
export const isReportable = ({ path, value }: Pick<DeviceValue, 'path' | 'value'>): boolean =>
  isPath(path) && isValue(value) && sizeOfValue({ path, value }) <= valueLimits.value;

/** The alert that carries a report. */
export const telemetryAlert = (
  { alerts }: Pick<Vocabulary, 'alerts'>,
  data: Uint8Array,
): Omit<OutgoingAlert, 'settled'> => ({
  code: AlertCode.Generic,
  items: [
    {
      source: { locUri: './GwTelemetry' },
      meta: { format: 'bin', type: alerts.TelemetryReport, mark: 'informational' },
      data,
    },
  ],
});

/**
 * Reads a Telemetry Report Alert.
 * @param now as of `decodeReport`
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function readTelemetry({ items: [item] }: Alert, now: number): TelemetryReport {
  if (!(item?.data instanceof Uint8Array)) throw bad('its data is not octets');
  return decodeReport(item.data, now);
}
