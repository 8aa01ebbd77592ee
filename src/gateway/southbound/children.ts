import { asPosternError, PosternError } from '../../base/errors.ts';
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
import type { Associations } from './associations.ts';
import type { Claims } from './claims.ts';

export interface ChildrenParts {
  readonly gatewayId: string;
  readonly vocabulary: Vocabulary;
  /** IDs of the devices that the configuration allows to be DM Gateways. */
  readonly allowed: Pick<ReadonlySet<string>, 'has'>;
  readonly associations: Pick<Associations, 'attachBehind' | 'detachBehind' | 'presenceBehind'>;
  /** Judges reports of devices that are attached elsewhere. */
  readonly claims: Pick<Claims, 'judge'>;
  readonly events: Events;
  /** Called when a fan-out of a child gateway has ended. */
  readonly fanoutEnded: (correlator: string | undefined, result: string) => void;
  /** Called with a fault of a child gateway, or of a gateway behind it. */
  readonly faulted: (fault: Omit<GatewayFault, keyof AlertNumber>) => void;
}

/** Maximum number of gateways in a chain below this one. */
export const hierarchyDepth = 4;

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
    const { vocabulary, associations, claims, events, fanoutEnded, faulted } = this.#parts;
    const { DeviceAttach, DeviceDetach, DevicePresence, CommandFanout, GatewayFault } = vocabulary.alerts;
    try {
      if (isAlertOf(alert, DeviceAttach)) {
        const { sequence: _, ...attach } = readDeviceAttach(vocabulary, alert);
        const path = this.#path(child, attach.via, attach.deviceId);
        claims.judge(child, attach.deviceId);
        associations.attachBehind(path, attach);
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
        faulted({ kind, reason, via: this.#path(child, via, '') });
        return DmStatus.Ok;
      }
      if (!isAlertOf(alert, CommandFanout)) return undefined;
      fanoutEnded(alert.correlator, String(alert.items[0]?.data ?? ''));
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

  /**
   * Path of gateways to a device, the child first, joined by `/`.
   * @throws {PosternError} `forbidden` for a loop, or for more than `hierarchyDepth` gateways
   */
  #path(child: string, via: string | undefined, deviceId: string): string {
    const path = via === undefined ? [child] : [child, ...via.split('/')];
    const { gatewayId } = this.#parts;
    if (deviceId === gatewayId || path.includes(gatewayId) || path.includes(deviceId))
      throw new PosternError(
        'forbidden',
        `the chain of gateways has a loop: ${[gatewayId, ...path, deviceId].join(' > ')}`,
      );
    if (path.length > hierarchyDepth)
      throw new PosternError('forbidden', `the chain of gateways is longer than ${hierarchyDepth}`);
    return path.join('/');
  }
}
