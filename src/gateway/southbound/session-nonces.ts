import type { Credentials, GatewayCredential } from '../store/credentials.ts';

/**
 * The nonces that a session has changed, until they are stored. They are stored once for a package: with what else it writes
 * for the device, or after it. The answer leaves when they are durable. No other message comes in between: the work of a
 * session with a device waits for nothing but the device.
 */
export class SessionNonces {
  readonly #credentials: Credentials;
  readonly #begunWith: GatewayCredential;
  #own: Uint8Array | undefined;
  #peer: Uint8Array | undefined;

  /** @param begunWith credential of the device when the session began */
  constructor(credentials: Credentials, begunWith: GatewayCredential) {
    this.#credentials = credentials;
    this.#begunWith = begunWith;
  }

  /** Notes nonces; see `SaveNonces`. */
  change({
    own = this.#own,
    peer = this.#peer,
  }: {
    readonly own?: Uint8Array;
    readonly peer?: Uint8Array;
  }): void {
    this.#own = own;
    this.#peer = peer;
  }

  /** The credential with the noted nonces, if they belong to it. */
  applied(credential: GatewayCredential): GatewayCredential {
    if (!this.#fit(credential)) return credential;
    const { serverNonce, clientNonce } = credential;
    return {
      ...credential,
      serverNonce: this.#own ?? serverNonce,
      clientNonce: this.#peer ?? clientNonce,
    };
  }

  /** Stores what was noted. */
  store(): void {
    const { deviceId } = this.#begunWith;
    const current = this.#credentials.get(deviceId);
    const [serverNonce, clientNonce] = [this.#own, this.#peer];
    this.#own = undefined;
    this.#peer = undefined;
    if (current && this.#fit(current) && (serverNonce || clientNonce))
      this.#credentials.keepNonces(deviceId, { serverNonce, clientNonce });
  }

  /** A new bootstrap may have replaced the credential meanwhile. Its nonces must stay. */
  #fit({ clientSecret }: GatewayCredential): boolean {
    return clientSecret === this.#begunWith.clientSecret;
  }
}
