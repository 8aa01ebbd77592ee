/** A DM package for a DM server, and how it came. */
export interface TunnelledPackage {
  readonly server: string;
  readonly device: string | undefined;
  /** Child gateways that it came through, the one nearest to the device first, joined by `/`. */
  readonly via?: string | undefined;
  readonly contentType: string | undefined;
  readonly body: Uint8Array;
  readonly hmac: string | undefined;
  /** Where from, for the log. */
  readonly address: string;
  /** Hears of a device whose package goes on. */
  readonly accepted?: (deviceId: string) => void;
}

/** What a package for a DM server came to: the server's package, or why there is none. */
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
