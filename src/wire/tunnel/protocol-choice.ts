import { type Clock, type Monotonic, plus } from '../../base/clock.ts';

/** Connections that the broker may close in a row without a CONNACK, before that counts as a refusal of the version. */
const silentRefusals = 3;
/** Milliseconds after which MQTT 5 is tried again, where the broker has refused it. */
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
 * three connections in a row without a CONNACK. No other failure says anything about the version. An hour after a refusal,
 * the next connection tries MQTT 5 again, because the broker may have been replaced.
 *
 * Closed connections alone make a guess: a load balancer closes them as well, while the broker behind it restarts. So the
 * next connection after one of MQTT 3.1.1 checks the guess. If it is closed without a CONNACK too, that is a refusal.
 */
export class ProtocolChoice {
  readonly #clock: Clock;
  readonly #isAuto: boolean;
  #current: 4 | 5;
  #unanswered = 0;
  #again: Monotonic | undefined;
  /** MQTT 3.1.1 was chosen because of closed connections alone. */
  #isGuess = false;
  /** The broker has accepted MQTT 3.1.1, which was a guess. */
  #isDoubtful = false;
  /** MQTT 5 is tried to check a guess. */
  #isChecking = false;

  constructor(clock: Clock, wanted: 'auto' | 4 | 5) {
    this.#clock = clock;
    this.#isAuto = wanted === 'auto';
    this.#current = wanted === 4 ? 4 : 5;
  }

  /** Protocol level of the current or last attempt. */
  get current(): 4 | 5 {
    return this.#current;
  }

  /** Whether the connection that the broker accepted should be replaced soon, because MQTT 5 may be possible. */
  get isDoubtful(): boolean {
    return this.#isDoubtful;
  }

  /** Protocol level for the attempt that begins now. */
  next(): 4 | 5 {
    if (this.#isDoubtful) {
      this.#change(5);
      this.#isChecking = true;
    } else if (this.#again !== undefined && this.#again <= this.#clock.now()) this.#change(5);
    return this.#current;
  }

  /** Takes note of a connection that the broker accepted. */
  accepted(): void {
    this.#unanswered = 0;
    this.#isChecking = false;
    this.#isDoubtful = this.#isGuess;
  }

  /** Takes note of an attempt that failed. Returns whether the next attempt uses the other version for this reason. */
  failed({ refusesVersion, isUnanswered }: VersionEvidence): boolean {
    this.#unanswered = isUnanswered ? this.#unanswered + 1 : 0;
    const isRefused = refusesVersion || this.#unanswered >= (this.#isChecking ? 1 : silentRefusals);
    if (!this.#isAuto || !isRefused) return false;
    const isGuess = this.#current === 5 && !refusesVersion && !this.#isChecking;
    this.#change(this.#current === 5 ? 4 : 5);
    this.#isGuess = isGuess;
    if (isGuess) this.#again = undefined;
    return true;
  }

  #change(to: 4 | 5): void {
    this.#current = to;
    this.#unanswered = 0;
    this.#isGuess = false;
    this.#isDoubtful = false;
    this.#isChecking = false;
    this.#again = to === 4 ? plus(this.#clock.now(), patience) : undefined;
  }
}
