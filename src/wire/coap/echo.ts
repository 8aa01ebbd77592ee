import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Clock } from '../../base/clock.ts';
import type { Entropy } from '../../base/entropy.ts';
import { Code } from './codes.ts';
import type { CoapRequest, Remote, Reply } from './message.ts';
import { refusal } from './message.ts';
import { Option, opaque } from './options.ts';

const macBytes = 12;
const timeBytes = 6;

/**
 * Echo values that need no state for each remote (RFC 9175 section 2.3 and appendix A). A value holds its time of issue
 * and a MAC over that time and the remote. The key is random and lives as long as this object. A value that comes back
 * within its lifetime proves that the request is fresh and that its sender receives at the address it claims.
 */
export class EchoGuard {
  readonly #key: Uint8Array;
  readonly #clock: Clock;
  /** Milliseconds that a value is valid. */
  readonly lifetime: number;

  constructor(clock: Clock, entropy: Entropy, lifetime = 30_000) {
    this.#clock = clock;
    this.#key = entropy.bytes(32);
    this.lifetime = lifetime;
  }

  issue(remote: Remote): Buffer {
    const time = Buffer.alloc(timeBytes);
    time.writeUIntBE(Math.floor(this.#clock.now()), 0, timeBytes);
    return Buffer.concat([time, this.#mac(time, remote)]);
  }

  /** Whether this guard issued the value to this remote within the last `lifetime` milliseconds. */
  isFresh(echo: Uint8Array, remote: Remote): boolean {
    if (echo.length !== timeBytes + macBytes) return false;
    const time = Buffer.from(echo.subarray(0, timeBytes));
    if (!timingSafeEqual(this.#mac(time, remote), echo.subarray(timeBytes))) return false;
    const age = this.#clock.now() - time.readUIntBE(0, timeBytes);
    return age >= -1 && age <= this.lifetime;
  }

  /** Returns a 4.01 response with an Echo value, which the client repeats in its next request (RFC 9175 section 2.3). */
  challenge(request: CoapRequest, why: string): Reply {
    return refusal(Code.Unauthorized, why, { options: [opaque(Option.Echo, this.issue(request.remote))] });
  }

  #mac(time: Uint8Array, remote: Remote): Buffer {
    return createHmac('sha256', this.#key).update(time).update(remote.key).digest().subarray(0, macBytes);
  }
}
