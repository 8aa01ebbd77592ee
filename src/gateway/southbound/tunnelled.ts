import type { PeerAddress } from './device-addresses.ts';

/** A DM package of a device for a DM server, independent of the transport. */
export interface TunnelledPackage {
  /** ServerID of the DM server. */
  readonly server: string;
  readonly device: string | undefined;
  /** Child gateways through which the package came, the one nearest to the device first, joined by `/`. */
  readonly via?: string | undefined;
  readonly contentType: string | undefined;
  readonly body: Uint8Array;
  readonly hmac: string | undefined;
  /** IP address of the sender. */
  readonly address: string;
  /** Where the sender can be reached; absent over HTTP. */
  readonly from?: PeerAddress;
  /** Over HTTP: URI of the sessions with this gateway, as the sender reaches them. */
  readonly httpUri?: string;
  /** Who the sender proved to be to the transport. */
  readonly identity?: string | undefined;
  /** Name of the sender behind the child gateway that has sent the package, by that gateway. */
  readonly peer?: string | undefined;
}

/** The answer of the DM server, or the reason why there is none. */
export type TunnelAnswer =
  | {
      readonly kind: 'answer';
      readonly body: Uint8Array;
      readonly contentType: string | undefined;
      readonly hmac: string | undefined;
    }
  /** `status` is a DM status; `retryAfter` is in seconds. */
  | {
      readonly kind: 'refused';
      readonly status: number;
      readonly reason: string;
      readonly retryAfter?: number;
    };
