import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { DmStatus } from '../../dm/status.ts';
import type { AlertNumber } from '../../mo/alert-number.ts';
import {
  type GatewayFault,
  isAlertOf,
  readDeviceAttach,
  readDeviceDetach,
  readDevicePresence,
  readGatewayFault,
} from '../../mo/gateway-alerts.ts';
import type { Vocabulary } from '../../mo/vocabulary.ts';
import type { Alert } from '../../wire/syncml/message.ts';
import type { ChildScope } from '../rights/child-scope.ts';
import type { Associations } from './associations.ts';

export interface ChildrenParts {
  readonly vocabulary: Vocabulary;
  /** IDs of the devices that the configuration allows to be DM Gateways. */
  readonly allowed: Pick<ReadonlySet<string>, 'has'>;
  readonly associations: Pick<Associations, 'attachBehind' | 'detachBehind' | 'presenceBehind'>;
  /** Judges what a child says, by what is attached behind it. */
  readonly scope: Omit<ChildScope, 'refusalOf'>;
  readonly events: Events;
  /** Called when a fan-out of a child gateway has ended. */
  readonly fanoutEnded: (child: string, correlator: string | undefined, result: string) => void;
  /** Called with a fault of a child gateway, or of a gateway behind it. */
  readonly faulted: (fault: Omit<GatewayFault, keyof AlertNumber>) => void;
}

/**
 * Takes the alerts of child gateways (GwMO 1.1). A device that a child reports becomes a device of this gateway,
 * recorded with the path of gateways through which it is reached.
 */
export class Children {
  readonly #parts: ChildrenParts;
  /** Children for whose last alert there was no room: at most as many as the configuration allows. */
  readonly #full = new Set<string>();

  constructor(parts: ChildrenParts) {
    this.#parts = parts;
  }

  /** Whether a device may be a DM Gateway with devices of its own (GwMO 1.1). */
  mayBeGateway(deviceId: string): boolean {
    return this.#parts.allowed.has(deviceId);
  }

  /**
   * Takes an alert of a child gateway. Returns the DM status of the alert; undefined when the sender may not be a
   * gateway, or the alert is of a type that is not handled here.
   */
  alerted(child: string, alert: Alert): number | undefined {
    if (!this.mayBeGateway(child)) return undefined;
    const status = this.#taken(child, alert);
    if (status === DmStatus.Ok) this.#full.delete(child);
    return status;
  }

  #taken(child: string, alert: Alert): number | undefined {
    const { vocabulary, associations, scope, events, fanoutEnded, faulted } = this.#parts;
    const { DeviceAttach, DeviceDetach, DevicePresence, CommandFanout, GatewayFault } = vocabulary.alerts;
    try {
      if (isAlertOf(alert, DeviceAttach)) {
        const { sequence: _, ...attach } = readDeviceAttach(vocabulary, alert);
        associations.attachBehind(scope.pathOfReport(child, attach.via, attach.deviceId), attach);
        return DmStatus.Ok;
      }
      if (isAlertOf(alert, DeviceDetach)) {
        const { deviceId, reason } = readDeviceDetach(alert);
        associations.detachBehind(child, deviceId, reason);
        return DmStatus.Ok;
      }
      if (isAlertOf(alert, DevicePresence)) {
        associations.presenceBehind(child, readDevicePresence(alert));
        return DmStatus.Ok;
      }
      if (isAlertOf(alert, GatewayFault)) {
        const { kind, reason, via } = readGatewayFault(alert);
        faulted({ kind, reason, via: scope.pathOfFault(child, via) });
        return DmStatus.Ok;
      }
      if (!isAlertOf(alert, CommandFanout)) return undefined;
      fanoutEnded(child, alert.correlator, String(alert.items[0]?.data ?? ''));
      return DmStatus.Ok;
    } catch (thrown) {
      const { message, dmStatus, code } = asPosternError(thrown);
      // A child at its bound sends the same alerts again and again.
      if (code !== 'full' || !this.#full.has(child))
        events.emit('hierarchy.refused', { child, reason: message });
      if (code === 'full') this.#full.add(child);
      return dmStatus;
    }
  }
}
