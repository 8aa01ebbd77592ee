/**
 * How a device got its account for the gateway: from the local bootstrap server (GwMO section 8.4.2), from the DM
 * server (section 8.4.1), or by configuration of both sides.
 */
export type BootstrapOrigin = 'local' | 'server' | 'manual';

/** Protocol that a device speaks. */
export type Protocol = 'OMA-DM' | 'LwM2M';

/** The inventory record of one attached device. */
export interface DeviceRecord {
  readonly deviceId: string;
  readonly state: 'attached';
  /** One of `GatewayMode`. */
  readonly mode: number;
  readonly origin: BootstrapOrigin;
  /** URI of the address from which the device was last heard. */
  readonly address: string;
  /** When the device was last heard: milliseconds since 1970 by the gateway's clock. */
  readonly lastSeen: number;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly firmware?: string;
  /** DevDetail/DevTyp of the device. */
  readonly deviceType?: string;
  readonly protocol: Protocol;
  /** Whether the device is a child DM Gateway (GwMO 1.1). */
  readonly isGateway: boolean;
  /**
   * DevIds of the child gateways that the device is behind, the nearest one first, joined by `/`. Absent for a device
   * that is attached to this gateway itself.
   */
  readonly via?: string;
  /** Paths of the objects and instances of an LwM2M client, separated by spaces. */
  readonly objects?: string;
}

/**
 * A device that the DM server bootstraps to this gateway, with the credentials that the gateway needs before it
 * attaches.
 */
export interface ExpectedDevice {
  readonly deviceId: string;
  readonly clientName: string;
  readonly clientSecret: string;
  readonly clientNonce: Uint8Array;
  readonly serverSecret: string;
  readonly serverNonce: Uint8Array;
}

/** The attached devices as management objects see them. The node of a record has the `hashedName` of the DevId. */
export interface DeviceRecords {
  values(): IterableIterator<DeviceRecord>;
  get(deviceId: string): DeviceRecord | undefined;
  /** Names of the records' nodes. */
  names(): string[];
  /** The record whose node has this name. */
  named(name: string): DeviceRecord | undefined;
}
