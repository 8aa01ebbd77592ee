import { asPosternError } from '../../base/errors.ts';
import { DmError } from '../../dm/dm-error.ts';
import { DmStatus } from '../../dm/status.ts';
import { GatewayMode, type Protocol } from '../../mo/device-record.ts';
import type { Inventory } from '../store/inventory.ts';
import type { TransparentMode } from './transparent.ts';
import type { Manage } from './waiting-work.ts';

export interface DeviceManagementParts {
  readonly inventory: Inventory;
  readonly transparent: TransparentMode;
  readonly proxy: { readonly manage: Manage };
  /** What manages the devices of adaptation mode, by their protocol. None for a protocol that is not configured. */
  readonly adaptations: Readonly<Partial<Record<Protocol, { readonly manage: Manage } | undefined>>>;
}

/** Chooses the mode in which the gateway manages a device, by the protocol of the device. */
export class DeviceManagement {
  readonly #parts: DeviceManagementParts;

  constructor(parts: DeviceManagementParts) {
    this.#parts = parts;
  }

  /** Performs operations on a device: in adaptation mode when its protocol is adapted, else in proxy mode. */
  readonly manage: Manage = (deviceId, ...rest) => {
    const { inventory, proxy, adaptations } = this.#parts;
    const { protocol = 'OMA-DM' } = inventory.get(deviceId) ?? {};
    const adaptation = isAdapted(inventory, deviceId) ? adaptations[protocol] : undefined;
    return (adaptation ?? proxy).manage(deviceId, ...rest);
  };

  /**
   * Delivers the Package #0 of a DM server to a device (transparent mode).
   * @throws {DmError} 406 for an adapted device, which opens no DM sessions; 412 without a Package #0
   * @throws {PosternError} as `TransparentMode.deliver`
   */
  async deliver(deviceId: string, server: string, package0: Uint8Array | undefined): Promise<void> {
    const { inventory, transparent } = this.#parts;
    if (isAdapted(inventory, deviceId))
      throw new DmError(DmStatus.OptionalFeatureNotSupported, `${deviceId} opens no DM sessions`);
    if (!package0) throw new DmError(DmStatus.IncompleteCommand, `no Package #0 for ${deviceId}`);
    await transparent.deliver(deviceId, server, package0);
  }

  /**
   * As `deliver`, for a DM server that waits for the device where no Package #0 reaches it. Resolves with the reason then: the
   * device has to come by itself.
   * @throws as `deliver`, except `notFound`
   */
  async told(deviceId: string, server: string, package0: Uint8Array): Promise<string | undefined> {
    try {
      await this.deliver(deviceId, server, package0);
      return undefined;
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      if (code !== 'notFound') throw thrown;
      return message;
    }
  }
}

/** Whether a device is attached here, and managed in adaptation mode, by this protocol where one is given. */
export function isAdapted(inventory: Pick<Inventory, 'get'>, deviceId: string, protocol?: Protocol): boolean {
  const record = inventory.get(deviceId);
  if (record?.mode !== GatewayMode.Adaptation || record.via !== undefined) return false;
  return protocol === undefined || record.protocol === protocol;
}
