import { createHmac } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';

/** Nonces for a client that has not proved itself. */
export interface Challenge {
  /** The nonce that is sent now. */
  readonly nonce: Uint8Array;
  /** Nonces of challenges that were sent lately. A proof with one of them is good. */
  readonly good: readonly Uint8Array[];
}

/** Milliseconds after which the nonce of a challenge changes. A nonce is good for this time at least, and twice at most. */
export const challengeLifetime = 60_000;
const nonceBytes = 16;

/**
 * Challenges of which the server keeps nothing. The nonce is a MAC over the name of the session, the time, and the nonce that
 * the server has stored for the client. So the server finds the nonce again when the proof comes. Each proof changes the
 * stored nonce, so each challenge is good for one proof.
 */
export class Challenges {
  readonly #clock: Clock;
  readonly #key: Uint8Array;

  constructor(clock: Clock, entropy: Entropy) {
    this.#clock = clock;
    this.#key = entropy.bytes(32);
  }

  /**
   * The nonces are computed when they are read: a client whose first proof is right needs none of them.
   * @param session names client and session
   * @param stored nonce that the next proof of the client is to use
   * @param isGood whether a proof may use the nonces of challenges that were sent lately
   */
  of(session: string, stored: Uint8Array, isGood = true): Challenge {
    const now = Math.floor(this.#clock.now() / challengeLifetime);
    const nonceAt = (time: number) =>
      this.#mac('challenge', `${time} ${session}`, stored).subarray(0, nonceBytes);
    return {
      get nonce() {
        return nonceAt(now);
      },
      get good() {
        return isGood ? [nonceAt(now), nonceAt(now - 1)] : [];
      },
    };
  }

  /**
   * What a server pretends to have for a client that it does not know, so that its answers do not tell which clients it
   * knows. Always the same for a name.
   */
  pretence(client: string): { readonly secret: string; readonly nonce: Uint8Array } {
    return {
      secret: this.#mac('secret', client).toString('base64url'),
      nonce: this.#mac('nonce', client).subarray(0, nonceBytes),
    };
  }

  #mac(purpose: string, name: string, more: Uint8Array = new Uint8Array()): Buffer {
    return createHmac('sha256', this.#key).update(`${purpose} ${name} `).update(more).digest();
  }
}
