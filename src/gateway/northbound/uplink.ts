import type { Envelope } from '../../wire/tunnel/envelope.ts';

/** A DM package for a DM server. */
export interface UpRequest {
  /** Device that sent the package; absent for a package of the gateway itself. */
  readonly device?: string;
  /** Child gateways through which the package came, the one nearest to the device first, joined by `/`. */
  readonly via?: string;
  /** Whose turn it takes among what waits. See `TransparentMode`. */
  readonly flow?: string;
  /** IP address from which the package came; absent for a package of the gateway itself. */
  readonly peer?: string;
  /** ServerID of the DM server. */
  readonly server: string;
  readonly contentType: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
  /** What the package is for, where that is not to be judged by its ends. */
  readonly traffic?: 'telemetry';
}

/** Receives what comes down the uplink, and changes of its state. */
export interface UplinkListener {
  /**
   * Takes a Package #0 for a device, or for the gateway itself when `deviceId` is undefined. Resolves with the reason when the
   * device cannot be asked and has to come by itself. Rejects when it is refused.
   */
  readonly notified: (
    deviceId: string | undefined,
    server: string,
    package0: Uint8Array,
  ) => Promise<string | undefined>;
  readonly connected: () => void;
  readonly disconnected: () => void;
}

/** How the uplink stands, for people. */
export interface UplinkDescription {
  /** URL of the broker or parent, without credentials. */
  readonly url: string;
  /** Protocol in use. */
  readonly protocol: string;
  /** Messages that wait to be sent, or that the other side has not acknowledged. */
  readonly waiting: number;
  /** The broker's access rules refuse something: `reason` says what. */
  readonly refused?: boolean;
  /** What is wrong: why the uplink is not connected, or what the other side refuses. Absent when all is well. */
  readonly reason?: string;
  /** Seconds until the next attempt to connect. */
  readonly retryInSeconds?: number;
}

/** The connection towards the DM servers: an MQTT broker, or a parent gateway. */
export interface Uplink extends AsyncDisposable {
  readonly connected: boolean;
  readonly description: UplinkDescription;
  /** Largest body of a package that the other side takes, in bytes, as far as it is known. Infinity: no limit is known. */
  readonly largestBody: number;
  /** Starts to connect, and reconnects whenever the connection is lost. */
  start(listener: UplinkListener): void;
  /**
   * Sends a package and resolves with the answer. An error that the far end reports is not thrown: it is an envelope of
   * kind `Error`.
   * @throws {PosternError} `unavailable`, `timeout`, `full`, `tooLarge`, `overBudget`
   */
  request(request: UpRequest): Promise<Envelope>;
}
