import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Clock, Monotonic } from '../../../base/clock.ts';
import type { Entropy } from '../../../base/entropy.ts';

/** Milliseconds after which a new secret is used. Cookies of the secret before it are still accepted. */
const secretLifetime = 60_000;
const cookieBytes = 16;

/**
 * Cookies of HelloVerifyRequest, without state for each client (RFC 6347 section 4.2.1). A cookie is a MAC over the client's address
 * and what its ClientHello says, so that only one who receives at that address can return it.
 */
export class Cookies {
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  #secret: Uint8Array;
  #former: Uint8Array;
  #since: Monotonic;

  constructor(clock: Clock, entropy: Entropy) {
    this.#clock = clock;
    this.#entropy = entropy;
    this.#secret = entropy.bytes(32);
    this.#former = entropy.bytes(32);
    this.#since = clock.now();
  }

  /** The cookie for a ClientHello. `hello` is its body without the cookie; `remote` is address and port. */
  issue(remote: string, hello: Uint8Array): Buffer {
    this.#renew();
    return cookieOf(this.#secret, remote, hello);
  }

  /** Whether the cookie was issued for this ClientHello and remote, at most two lifetimes of a secret ago. */
  isValid(cookie: Uint8Array, remote: string, hello: Uint8Array): boolean {
    if (cookie.length !== cookieBytes) return false;
    this.#renew();
    return [this.#secret, this.#former].some((secret) =>
      timingSafeEqual(cookieOf(secret, remote, hello), cookie),
    );
  }

  #renew(): void {
    const age = this.#clock.now() - this.#since;
    if (age < secretLifetime) return;
    this.#former = age < 2 * secretLifetime ? this.#secret : this.#entropy.bytes(32);
    this.#secret = this.#entropy.bytes(32);
    this.#since = this.#clock.now();
  }
}

const cookieOf = (secret: Uint8Array, remote: string, hello: Uint8Array): Buffer =>
  createHmac('sha256', secret).update(`${remote}\n`).update(hello).digest().subarray(0, cookieBytes);
