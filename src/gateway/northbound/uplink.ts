import type { Envelope } from '../../wire/tunnel/envelope.ts';

/** A package for a DM server. */
export interface UpRequest {
  readonly device?: string;
  /** Child gateways that the package came through, the one nearest to the device first, joined by `/`. */
  readonly via?: string;
  readonly server: string;
  readonly contentType: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** Hears what comes down the uplink, and how the uplink stands. */
export interface UplinkListener {
  /** A Package #0 came down: for a device, or for the gateway itself when `deviceId` is undefined. */
  readonly notified: (deviceId: string | undefined, server: string, package0: Uint8Array) => Promise<void>;
  readonly connected: () => void;
  readonly disconnected: () => void;
}

/** The way up: a broker, or a parent gateway. */
export interface Uplink extends AsyncDisposable {
  readonly connected: boolean;
  /** For people: where it leads, and by what. */
  readonly description: { readonly url: string; readonly protocol: string };
  start(listener: UplinkListener): void;
  /**
   * Sends a package and resolves with its answer.
   * @throws {PosternError} `unavailable`, `timeout`, `full`, `tooLarge`; what the far end reports comes as an envelope of
   * kind Error
   */
  request(request: UpRequest): Promise<Envelope>;
}
