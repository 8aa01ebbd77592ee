import type { PeerAddress } from './device-addresses.ts';

/** A DM package of a device, independent of the transport. */
export interface ArrivedPackage {
  readonly body: Uint8Array;
  readonly mediaType: string;
  /** Value of `x-syncml-hmac`. */
  readonly hmac: string | undefined;
  /** The transport. Packages with the same device ID and session ID but different `way` are not mixed up. */
  readonly way: 'coap' | 'http';
  /** See `ArrivedMessage`. */
  readonly associations: readonly string[];
  /** Address of the sender as a URI. */
  readonly address: string;
  /** Who the sender proved to be to the transport. */
  readonly identity?: string | undefined;
  /**
   * The transport does not tie packages to each other. So the client gets a URI for the next packages of its session. Makes
   * this URI of random text, which the packages then bring as an association.
   */
  readonly uriFor?: (random: string) => string;
  /** Where the device can be reached; absent over HTTP, which does not lead back to a device. */
  readonly from?: PeerAddress;
  /** ServerID of the gateway in the device's account, if it is not the gateway's own name. */
  readonly serverId?: string;
  /** Called when the device is authenticated, by this package or an earlier one of the session. */
  readonly proved: (deviceId: string) => void;
}
