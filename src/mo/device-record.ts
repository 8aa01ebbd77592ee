/** How a device's account for the gateway came: local (GwMO 8.4.2), by the DM server (8.4.1), or by hand on both sides. */
export const bootstrapOrigins = ['local', 'server', 'manual'] as const;
export type BootstrapOrigin = (typeof bootstrapOrigins)[number];

/** What a device speaks. */
export const protocols = ['OMA-DM', 'LwM2M'] as const;
export type Protocol = (typeof protocols)[number];

export interface DeviceRecord {
  readonly deviceId: string;
  readonly state: 'attached';
  /** 0 transparent, 1 proxy, 2 adaptation. */
  readonly mode: number;
  readonly origin: BootstrapOrigin;
  /** URI of where the device was heard last. */
  readonly address: string;
  /** Wall time in milliseconds since 1970, as the gateway's clock had it. */
  readonly lastSeen: number;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly firmware?: string;
  /** What kind of thing it is, by its DevDetail. */
  readonly deviceType?: string;
  readonly protocol: Protocol;
  /** It is a DM Gateway itself (GwMO 1.1). */
  readonly isGateway: boolean;
  /** The child gateway that it is behind; none for what is attached here. */
  readonly via?: string;
  /** Of an LwM2M client: paths of its objects and instances, separated by spaces. */
  readonly objects?: string;
}

/** A device that the DM server bootstraps to this gateway: what the gateway must know before it comes. */
export interface ExpectedDevice {
  readonly deviceId: string;
  readonly clientName: string;
  readonly clientSecret: string;
  readonly clientNonce: Uint8Array;
  readonly serverSecret: string;
  readonly serverNonce: Uint8Array;
}

/** The attached devices as management objects see them. A record's node is named by a hash of its device ID. */
export interface DeviceRecords {
  values(): IterableIterator<DeviceRecord>;
  get(deviceId: string): DeviceRecord | undefined;
  /** Names of the records' nodes. */
  names(): string[];
  /** By the name of its node. */
  named(name: string): DeviceRecord | undefined;
}
