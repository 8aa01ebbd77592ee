/** Modes of the gateway for a device (GwMO), as this program counts. The codes of the wire are in the vocabulary. */
export const GatewayMode = { Transparent: 0, Proxy: 1, Adaptation: 2 } as const;
export type GatewayMode = (typeof GatewayMode)[keyof typeof GatewayMode];
/** All modes, in the order of the codes in the vocabulary. */
export const gatewayModes = Object.values(GatewayMode);

/**
 * States of a device. `unreachable`: the device is still attached, but it did not answer when it was asked, or it was
 * silent for too long. It is `attached` again when the gateway hears from it. A detached device has no record.
 */
export const deviceStates = ['attached', 'unreachable'] as const;
export type DeviceState = (typeof deviceStates)[number];

/**
 * How a device got its account for the gateway: from the local bootstrap server (GwMO section 8.4.2), from the DM
 * server (section 8.4.1), by configuration of both sides, or from the local bootstrap server in a join window: nobody had
 * listed the device, and its key was trusted at its first use.
 */
export const bootstrapOrigins = ['local', 'server', 'manual', 'joined'] as const;
export type BootstrapOrigin = (typeof bootstrapOrigins)[number];

/** Protocol that a device speaks. */
export const protocols = ['OMA-DM', 'LwM2M', 'CoAP'] as const;
export type Protocol = (typeof protocols)[number];

/** The inventory record of one attached device. */
export interface DeviceRecord {
  readonly deviceId: string;
  readonly state: DeviceState;
  /** Why the device is `unreachable`, as one line for a person. */
  readonly reason?: string;
  readonly mode: GatewayMode;
  readonly origin: BootstrapOrigin;
  /** URI of the address from which the device was last heard. */
  readonly address: string;
  /** Local IP address, with its zone, of the socket on which the device was heard last; only over CoAP. */
  readonly heardOn?: string;
  /**
   * When the device last sent a message that proved who it is: milliseconds since 1970 by the gateway's clock.
   */
  readonly lastSeen: number;
  readonly manufacturer?: string;
  readonly model?: string;
  readonly firmware?: string;
  /** DevDetail/DevTyp of the device. */
  readonly deviceType?: string;
  /** Serial number, as an LwM2M client says it. */
  readonly serial?: string;
  readonly protocol: Protocol;
  /** Whether the device is a child DM Gateway (GwMO 1.1). */
  readonly isGateway: boolean;
  /**
   * DevIds of the child gateways that the device is behind, the nearest one first, joined by `/`. Absent for a device
   * that is attached to this gateway itself.
   */
  readonly via?: string;
  /** Paths of the objects and instances of an LwM2M client, or of the resources of a CoAP device, separated by spaces. */
  readonly objects?: string;
}

/** What opens a DTLS association with the gateway (RFC 4279). */
export interface TransportKey {
  /** Identity of the pre-shared key: 1 to 128 printable characters of ASCII. */
  readonly identity: string;
  /** The key. Its octets are those of the text in UTF-8. */
  readonly key: string;
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
  /** For CoAP over DTLS. Without it, the device reaches the gateway over plain CoAP or HTTP. */
  readonly transport?: TransportKey;
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
