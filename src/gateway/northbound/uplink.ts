import type { Envelope } from '../../wire/tunnel/envelope.ts';

/** A DM package for a DM server. */
export interface UpRequest {
  /** Device that sent the package; absent for a package of the gateway itself. */
  readonly device?: string;
  /** Child gateways through which the package came, the one nearest to the device first, joined by `/`. */
  readonly via?: string;
  /** IP address from which the package came; absent for a package of the gateway itself. */
  readonly peer?: string;
  /** ServerID of the DM server. */
  readonly server: string;
  readonly contentType: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** Receives what comes down the uplink, and changes of its state. */
export interface UplinkListener {
  /**
   * Takes a Package #0 for a device, or for the gateway itself when `deviceId` is undefined. Rejects when it is
   * refused.
   */
  readonly notified: (deviceId: string | undefined, server: string, package0: Uint8Array) => Promise<void>;
  readonly connected: () => void;
  readonly disconnected: () => void;
}

/** The connection towards the DM servers: an MQTT broker, or a parent gateway. */
export interface Uplink extends AsyncDisposable {
  readonly connected: boolean;
  /** URL of the broker or parent, and protocol in use, for display. */
  readonly description: { readonly url: string; readonly protocol: string };
  /** Starts to connect, and reconnects whenever the connection is lost. */
  start(listener: UplinkListener): void;
  /**
   * Sends a package and resolves with the answer. An error that the far end reports is not thrown: it is an envelope of
   * kind `Error`.
   * @throws {PosternError} `unavailable`, `timeout`, `full`, `tooLarge`, `overBudget`
   */
  request(request: UpRequest): Promise<Envelope>;
}
