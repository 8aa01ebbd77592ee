import { type Clock, type Monotonic, plus } from '../../base/clock.ts';

/** Connections that the broker may close in a row without a CONNACK, before that counts as a refusal of the version. */
const silentRefusals = 3;
/** Milliseconds after which MQTT 5 is tried again. */
const patience = 3_600_000;

/** What an attempt says about the protocol version. */
export interface VersionEvidence {
  /** The CONNACK refuses the protocol version. */
  readonly refusesVersion: boolean;
  /** The broker took the connection and closed it without a CONNACK. Old brokers do so for an unknown version. */
  readonly isUnanswered: boolean;
}

/**
 * Chooses the MQTT version. With `auto`, MQTT 5 is left only when the broker refuses it: by its CONNACK, or by closing
 * three connections in a row without a CONNACK. No other failure says anything about the version. An hour later, the next
 * connection tries MQTT 5 again, because the broker may have been replaced.
 */
export class ProtocolChoice {
  readonly #clock: Clock;
  readonly #isAuto: boolean;
  #current: 4 | 5;
  #unanswered = 0;
  #again: Monotonic | undefined;

  constructor(clock: Clock, wanted: 'auto' | 4 | 5) {
    this.#clock = clock;
    this.#isAuto = wanted === 'auto';
    this.#current = wanted === 4 ? 4 : 5;
  }

  /** Protocol level of the current or last attempt. */
  get current(): 4 | 5 {
    return this.#current;
  }

  /** Protocol level for the attempt that begins now. */
  next(): 4 | 5 {
    if (this.#again !== undefined && this.#again <= this.#clock.now()) this.#change(5);
    return this.#current;
  }

  /** Takes note of a connection that the broker accepted. */
  accepted(): void {
    this.#unanswered = 0;
  }

  /** Takes note of an attempt that failed. Returns whether the next attempt uses the other version for this reason. */
  failed({ refusesVersion, isUnanswered }: VersionEvidence): boolean {
    this.#unanswered = isUnanswered ? this.#unanswered + 1 : 0;
    const isRefused = refusesVersion || this.#unanswered >= silentRefusals;
    if (!this.#isAuto || !isRefused) return false;
    this.#change(this.#current === 5 ? 4 : 5);
    return true;
  }

  #change(to: 4 | 5): void {
    this.#current = to;
    this.#unanswered = 0;
    this.#again = to === 4 ? plus(this.#clock.now(), patience) : undefined;
  }
}
