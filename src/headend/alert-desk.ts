import type { BoundedMap } from '../base/bounded-map.ts';
import { asPosternError } from '../base/errors.ts';
import type { Events } from '../base/events.ts';
import { AlertCode, DmStatus } from '../dm/status.ts';
import { type FirmwareOperation, isFirmwareOperation } from '../mo/firmware-branch.ts';
import { isAlertOf, readDeviceAttach, readDeviceDetach, readLocationUpdate } from '../mo/gateway-alerts.ts';
import { FumoAlert } from '../mo/identifiers.ts';
import type { Vocabulary } from '../mo/vocabulary.ts';
import type { Alert } from '../wire/syncml/message.ts';
import type { Parties } from './parties.ts';
import type { Records } from './records.ts';
import type { SessionContext } from './sessions.ts';

export interface AlertDeskParts {
  readonly parties: Parties;
  readonly records: Records;
  readonly vocabulary: Vocabulary;
  readonly events: Events;
  /** Gateways at the broker by which parties are reached. */
  readonly heardThrough: BoundedMap<string, string>;
  /** A gateway is to let a device go that is behind another now. */
  readonly letGo: (gateway: string, deviceId: string) => void;
}

const resultEvents = {
  CommandFanout: 'alert.command-fanout',
  DeviceTrigger: 'alert.device-trigger',
  ImageOperation: 'alert.image-operation',
} as const;
type ResultKind = keyof typeof resultEvents;
const resultKinds = Object.keys(resultEvents) as ResultKind[];

/** What gateways and devices report (GwMO's alerts), and what this server makes of it. */
export class AlertDesk {
  readonly #parts: AlertDeskParts;

  constructor(parts: AlertDeskParts) {
    this.#parts = parts;
  }

  /** Answers an alert with its status: 415 for a type that this server does not know. */
  alerted({ party, gateway: through }: Omit<SessionContext, 'opening'>, alert: Alert): number {
    const ofGateway = party.kind === 'gateway';
    const gateway = ofGateway ? party.id : through;
    const { alerts } = this.#parts.vocabulary;
    try {
      if (isAlertOf(alert, alerts.DeviceAttach))
        return ofGateway ? this.#deviceAttached(gateway, alert) : DmStatus.Forbidden;
      if (isAlertOf(alert, alerts.DeviceDetach))
        return ofGateway ? this.#deviceDetached(gateway, alert) : DmStatus.Forbidden;
      if (isAlertOf(alert, alerts.LocationUpdate))
        return ofGateway ? DmStatus.Forbidden : this.#deviceMoved(party.id, gateway, alert);
      const kind = resultKinds.find((each) => isAlertOf(alert, alerts[each]));
      if (kind) return ofGateway ? this.#operationEnded(kind, gateway, alert) : DmStatus.Forbidden;
      const firmware = firmwareOperation(alert);
      if (firmware) return this.#updateEnded(firmware, ofGateway ? gateway : party.id, alert);
      return DmStatus.UnsupportedMediaType;
    } catch (thrown) {
      return asPosternError(thrown).dmStatus;
    }
  }

  #deviceAttached(reporter: string, alert: Alert): number {
    const { sequence, deviceId, via, ...attach } = readDeviceAttach(this.#parts.vocabulary, alert);
    if (!this.#parts.parties.takesAlert(reporter, sequence)) return DmStatus.Ok;
    // Of a device behind a child gateway the parent reports by which path; the last of it is nearest to the device.
    const gateway = via?.split('/').at(-1) ?? reporter;
    const top = this.#parts.heardThrough.get(reporter) ?? reporter;
    if (gateway !== top) this.#parts.heardThrough.set(gateway, top);
    if (deviceId !== top) this.#parts.heardThrough.set(deviceId, top);
    this.#parts.parties.dropPendingDetach(gateway, deviceId);
    const before = this.#parts.parties.associate(deviceId, gateway);
    const { bootstrap, manufacturer, model } = attach;
    this.#parts.records.addAlert('DeviceAttach', gateway, deviceId, attach);
    this.#parts.events.emit('alert.device-attach', {
      device: deviceId,
      gateway,
      bootstrap,
      manufacturer,
      model,
    });
    // Two gateways hold it now; the one that spoke last is right.
    if (before !== undefined && this.#parts.parties.get(before)) this.#parts.letGo(before, deviceId);
    return DmStatus.Ok;
  }

  #deviceDetached(reporter: string, alert: Alert): number {
    const { sequence, deviceId, reason, via } = readDeviceDetach(alert);
    if (!this.#parts.parties.takesAlert(reporter, sequence)) return DmStatus.Ok;
    const gateway = via?.split('/').at(-1) ?? reporter;
    this.#parts.parties.dissociate(deviceId, gateway);
    this.#parts.records.addAlert('DeviceDetach', gateway, deviceId, { reason });
    this.#parts.events.emit('alert.device-detach', { device: deviceId, gateway, reason });
    return DmStatus.Ok;
  }

  #operationEnded(kind: ResultKind, gateway: string, { correlator, items: [item] }: Alert): number {
    const name = item?.source?.locUri.split('/').at(-1) ?? '';
    const result = String(item?.data ?? '');
    this.#parts.records.putResult({ kind, gateway, name, correlator, result });
    this.#parts.records.addAlert(kind, gateway, undefined, { name, correlator });
    this.#parts.events.emit(resultEvents[kind], { gateway, name, correlator, bytes: result.length });
    return DmStatus.Ok;
  }

  /** An update of a gateway or a device itself (OMA FUMO 1.0, section 8). */
  #updateEnded(operation: FirmwareOperation, party: string, { correlator, items: [item] }: Alert): number {
    const result = Number(item?.data);
    if (!Number.isInteger(result)) return DmStatus.BadRequest;
    this.#parts.records.addAlert('FirmwareUpdate', party, undefined, { operation, correlator, result });
    this.#parts.events.emit('alert.firmware-update', { party, operation, correlator, result });
    return DmStatus.Ok;
  }

  /** GwMO 8.4.1, figure 10: where it belongs now is decided in the session that the device is in. */
  #deviceMoved(deviceId: string, gateway: string, alert: Alert): number {
    const { address, gateway: before } = readLocationUpdate(alert);
    this.#parts.records.addAlert('LocationUpdate', gateway, deviceId, { address, before });
    this.#parts.events.emit('alert.location-update', { device: deviceId, gateway, address, before });
    return DmStatus.Ok;
  }
}

/** The operation of FUMO that an alert ends, by its type. */
function firmwareOperation({ data, items: [item] }: Alert): FirmwareOperation | undefined {
  if (data !== AlertCode.Generic) return undefined;
  const type = item?.meta?.type;
  return Object.keys(FumoAlert)
    .filter(isFirmwareOperation)
    .find((name) => FumoAlert[name] === type);
}
