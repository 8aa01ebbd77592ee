import { asPosternError, PosternError } from '../../base/errors.ts';
import type { DeviceRecord } from '../../mo/device-record.ts';

/** Maximum number of gateways in a chain below this one. */
export const hierarchyDepth = 4;

/**
 * ID of the child gateway that a device is behind; undefined for one that is attached here, or not at all. Only this child may say
 * that the device is silent or gone.
 */
export const childIn = (record: Pick<DeviceRecord, 'via'> | undefined): string | undefined =>
  record?.via?.split('/')[0];

export interface ChildScopeParts {
  readonly gatewayId: string;
  readonly recordOf: (deviceId: string) => Pick<DeviceRecord, 'via' | 'isGateway'> | undefined;
  /** Judges what a child says of a device that is attached elsewhere, as `Claims.judge`. */
  readonly judge: (child: string, deviceId: string) => void;
}

/** What a package says of where it comes from. */
export interface SaidOrigin {
  readonly device: string;
  /** Gateways that it came through, the one nearest to the device first. Undefined when it came directly. */
  readonly via: readonly string[] | undefined;
  /** DevId to which the key belongs by which it came; undefined without one. */
  readonly identity: string | undefined;
  /** The attached child gateway that has proved itself at the address that it came from. */
  readonly child: string | undefined;
}

/**
 * What child gateways (GwMO 1.1) may say of devices and of gateways, by what is attached behind them. Packages (`via` and `id`)
 * and alerts are judged alike.
 */
export class ChildScope {
  readonly #parts: ChildScopeParts;

  constructor(parts: ChildScopeParts) {
    this.#parts = parts;
  }

  /**
   * Why a package cannot come from where it says; undefined when it can. `status` is a DM status: 503 when the package may be
   * accepted soon.
   */
  refusalOf({ device, via, identity, child }: SaidOrigin): { status: number; reason: string } | undefined {
    const refused = (status: number, reason: string) => ({ status, reason });
    if (identity !== undefined && identity !== (via?.at(-1) ?? device))
      return refused(403, 'a package belongs to the device whose key it comes by');
    if (via === undefined) return undefined;
    if (via.includes(this.#parts.gatewayId) || via.length > hierarchyDepth)
      return refused(508, 'the chain of gateways has a loop or is too long');
    // A child that has just bootstrapped, or has a new address, proves itself in a moment.
    if (child === undefined || via.at(-1) !== child)
      return refused(503, 'the way of a package is told by an attached child gateway alone');
    try {
      this.#demandPath(via.toReversed());
      this.#parts.judge(child, device);
      return undefined;
    } catch (thrown) {
      const { code, message } = asPosternError(thrown);
      return refused(code === 'unavailable' ? 503 : 403, message);
    }
  }

  /**
   * Path of gateways to a device that a child reports, the child first.
   * @throws {PosternError} `forbidden` for a loop, or for more than `hierarchyDepth` gateways; `unavailable` while a gateway of the
   * path is not attached behind this child; what `judge` throws
   */
  pathOfReport(child: string, via: string | undefined, deviceId: string): string {
    const path = this.#pathOf(child, via, deviceId);
    this.#demandPath(path);
    this.#parts.judge(child, deviceId);
    return path.join('/');
  }

  /** As `pathOfReport`, for a report of a gateway behind the child about itself. It is not worth to be repeated. */
  pathOfFault(child: string, via: string | undefined): string {
    const path = this.#pathOf(child, via, '');
    this.#demandPath(path, 'forbidden');
    return path.join('/');
  }

  #pathOf(child: string, via: string | undefined, deviceId: string): string[] {
    const path = via === undefined ? [child] : [child, ...via.split('/')];
    const { gatewayId } = this.#parts;
    if (deviceId === gatewayId || path.includes(gatewayId) || path.includes(deviceId))
      throw new PosternError(
        'forbidden',
        `the chain of gateways has a loop: ${[gatewayId, ...path, deviceId].join(' > ')}`,
      );
    if (path.length > hierarchyDepth)
      throw new PosternError('forbidden', `the chain of gateways is longer than ${hierarchyDepth}`);
    return path;
  }

  /** Each gateway of a path must be attached behind the one before. */
  #demandPath(path: readonly string[], code: 'unavailable' | 'forbidden' = 'unavailable'): void {
    for (const [at, gateway] of path.entries()) {
      if (at === 0) continue;
      const record = this.#parts.recordOf(gateway);
      if (!record?.isGateway || record.via !== path.slice(0, at).join('/'))
        throw new PosternError(code, `${gateway} is not attached behind ${path[at - 1]}`);
    }
  }
}
