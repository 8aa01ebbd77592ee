import { asPosternError, PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import { DmStatus } from '../../dm/status.ts';
import { isAlertOf, readDeviceAttach, readDeviceDetach } from '../../mo/gateway-alerts.ts';
import type { Vocabulary } from '../../mo/vocabulary.ts';
import type { Alert } from '../../wire/syncml/message.ts';
import type { Associations } from './associations.ts';

export interface ChildrenParts {
  readonly gatewayId: string;
  readonly vocabulary: Vocabulary;
  /** Devices that the configuration allows to be DM Gateways. */
  readonly allowed: ReadonlySet<string>;
  readonly associations: Pick<Associations, 'attachBehind' | 'detachBehind'>;
  readonly events: Events;
  /** A child's fan-out has ended. */
  readonly fanoutEnded: (correlator: string | undefined, result: string) => void;
}

/** Gateways below a gateway, one below the other. */
export const hierarchyDepth = 4;

/** What child gateways report (GwMO 1.1): their devices become devices of this gateway, by the path on which they are reached. */
export class Children {
  readonly #parts: ChildrenParts;

  constructor(parts: ChildrenParts) {
    this.#parts = parts;
  }

  /** Whether a device may be a DM Gateway that has devices of its own (GwMO 1.1). */
  mayBeGateway(deviceId: string): boolean {
    return this.#parts.allowed.has(deviceId);
  }

  /** Takes an alert of a child gateway. Returns the alert's status; undefined when the alert is of another kind. */
  alerted(child: string, alert: Alert): number | undefined {
    const { vocabulary, associations, events, fanoutEnded } = this.#parts;
    if (!this.mayBeGateway(child)) return undefined;
    const { DeviceAttach, DeviceDetach, CommandFanout } = vocabulary.alerts;
    try {
      if (isAlertOf(alert, DeviceAttach)) {
        const { sequence: _, ...attach } = readDeviceAttach(vocabulary, alert);
        associations.attachBehind(this.#path(child, attach.via, attach.deviceId), attach);
        return DmStatus.Ok;
      }
      if (isAlertOf(alert, DeviceDetach)) {
        const { deviceId, reason } = readDeviceDetach(alert);
        associations.detachBehind(child, deviceId, reason);
        return DmStatus.Ok;
      }
      if (!isAlertOf(alert, CommandFanout)) return undefined;
      fanoutEnded(alert.correlator, String(alert.items[0]?.data ?? ''));
      return DmStatus.Ok;
    } catch (thrown) {
      const { message, dmStatus } = asPosternError(thrown);
      events.emit('hierarchy.refused', { child, reason: message });
      return dmStatus;
    }
  }

  /** @throws {PosternError} `forbidden` for a loop, or too many gateways one below the other */
  #path(child: string, via: string | undefined, deviceId: string): string {
    const path = via === undefined ? [child] : [child, ...via.split('/')];
    const { gatewayId } = this.#parts;
    if (deviceId === gatewayId || path.includes(gatewayId) || path.includes(deviceId))
      throw new PosternError(
        'forbidden',
        `a loop of gateways: ${gatewayId} below ${path.join(' ')} ${deviceId}`,
      );
    if (path.length > hierarchyDepth)
      throw new PosternError('forbidden', `more than ${hierarchyDepth} gateways below each other`);
    return path.join('/');
  }
}
