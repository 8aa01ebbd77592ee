import type { DeviceRecord, DeviceRecords } from '../../mo/device-record.ts';

/**
 * Presence of a device, for OMA DM devices and LwM2M clients alike. `undefined` is a device that is not attached.
 *
 * | from | `attached` (its proof was accepted) | `heard` (a proven message) | `missing` (asked in vain, or silent too long) | `gone` (it left, the server removed it, or it is attached elsewhere) |
 * |---|---|---|---|---|
 * | not attached | attached | not attached | not attached | not attached |
 * | attached | attached | attached | unreachable | not attached |
 * | unreachable | attached | attached | unreachable, with the new reason | not attached |
 *
 * Silence never detaches a device. Its credential is deleted only when the device is gone.
 */
export type Presence = Pick<DeviceRecord, 'state' | 'reason'> | undefined;

export type PresenceEvent =
  | { readonly name: 'attached' | 'heard' | 'gone' }
  /** `reason` is one line for a person. It has no figure that changes by itself, so the same cause is the same reason. */
  | { readonly name: 'missing'; readonly reason: string };

/** The presence after an event; see the table at `Presence`. */
export function presenceAfter(before: Presence, event: PresenceEvent): Presence {
  if (event.name === 'attached') return { state: 'attached' };
  if (!before || event.name === 'gone') return undefined;
  return event.name === 'missing' ? { state: 'unreachable', reason: event.reason } : { state: 'attached' };
}

/** What a question to a device came to. */
export type Finding =
  /** The device gave an answer that only this device can give. */
  | { readonly kind: 'proven' }
  /** Somebody answers at its address, but nobody knows who. */
  | { readonly kind: 'unproven' }
  /** Nobody answers there, or another device does. */
  | { readonly kind: 'missing'; readonly reason: string };

export const proven: Finding = { kind: 'proven' };
export const unproven: Finding = { kind: 'unproven' };
export const missing = (reason: string): Finding => ({ kind: 'missing', reason });
/** @param uri where the device was heard last, as `DeviceLocator.uriOf` says it */
export const nothingAt = (uri: string): Finding => missing(`nothing answers at ${uri}`);
export const isAtItsAddress = (other: string): string => `${other} is at its address now`;
export const noWayTo = (uri: string): Finding => missing(`no network interface leads to ${uri}`);

/** Milliseconds that a client in queue mode listens after it was heard: MAX_TRANSMIT_WAIT (RFC 7252 section 4.8.2). */
export const awakeFor = 93_000;

const minute = 60_000;
const hour = 60 * minute;

/**
 * Milliseconds of silence after which a device is asked whether it is there, by the kind of device.
 * - `gateway`: a child gateway, because all devices behind it depend on it.
 * - `usual`: any other device that can be asked at any time.
 * - `period`: bounds of the silence of a device that comes by itself in regular periods. It is asked after three of them.
 * - `http`: a device over HTTP. It cannot be asked, so silence alone makes it unreachable.
 * - `grace`: added to the lifetime of an LwM2M registration, for an update that was repeated (MAX_TRANSMIT_WAIT, RFC 7252
 *   section 4.8.2).
 */
export const silences = {
  gateway: 10 * minute,
  usual: 4 * hour,
  period: { count: 3, least: 30 * minute, most: 72 * hour },
  http: 26 * hour,
  grace: 93_000,
} as const;

/** What decides how long a device may be silent. */
export interface SilenceOf {
  readonly record: Pick<DeviceRecord, 'isGateway' | 'address'>;
  /** Of an LwM2M client: lifetime of its registration in seconds, and whether it sleeps in between. */
  readonly registration?: { readonly lifetime: number; readonly queueMode: boolean } | undefined;
  /** Milliseconds between two messages that the device sent by itself, as far as they were observed. */
  readonly period?: number | undefined;
  /** `limits.device-expiry` in milliseconds, when it is configured. 0: never. It is not for LwM2M clients. */
  readonly configured?: number | undefined;
}

/** Milliseconds of a registration's lifetime in seconds; 0 is for ever. */
export const lifetimeOf = (seconds: number): number => seconds * 1000 || Number.POSITIVE_INFINITY;

/** Milliseconds of silence after which the device is asked. `Infinity`: never. */
export function silenceOf({ record, registration, period, configured }: SilenceOf): number {
  if (registration) {
    const lifetime = lifetimeOf(registration.lifetime) + silences.grace;
    // A client that sleeps is silent until its next update, and cannot be asked before.
    return registration.queueMode ? lifetime : Math.min(lifetime, silences.usual);
  }
  if (configured !== undefined) return configured === 0 ? Number.POSITIVE_INFINITY : configured;
  if (record.isGateway) return silences.gateway;
  const { count, least, most } = silences.period;
  const usual = record.address.startsWith('http') ? silences.http : silences.usual;
  return period === undefined ? usual : Math.min(most, Math.max(least, count * period));
}

/** The records as they are shown. A device behind a child gateway cannot be reached while the child cannot. */
export function shownRecords(records: DeviceRecords): DeviceRecords {
  const shown = (record: DeviceRecord): DeviceRecord => {
    const [child] = record.via?.split('/') ?? [];
    const above = child === undefined ? undefined : records.get(child);
    if (above?.state !== 'unreachable') return record;
    const reason = `its gateway ${child} is unreachable: ${above.reason}`;
    return { ...record, state: 'unreachable', reason };
  };
  const ifAny = (record: DeviceRecord | undefined) => record && shown(record);
  return {
    values: () => Iterator.from(records.values()).map(shown),
    names: () => records.names(),
    get: (deviceId) => ifAny(records.get(deviceId)),
    named: (name) => ifAny(records.named(name)),
  };
}
