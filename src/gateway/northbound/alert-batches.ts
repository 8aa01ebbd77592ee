import { BoundedMap } from '../../base/bounded-map.ts';
import type { OutboxEntry } from '../store/outbox.ts';

/** Largest number of alerts of one session. */
export const alertsPerSession = 1024;
/** Sessions with alerts that fail in a row, after which sessions have fewer alerts. */
const failuresUntilFewer = 3;
/** How many times fewer, with each further failure. */
const divisor = 8;
/**
 * Rounds of a session with one alert that fails, and one without alerts that succeeds, after which the alert is the culprit.
 * One round may be the end of an outage.
 */
const roundsUntilBlame = 2;
/** Servers that are remembered. */
const serverBound = 64;

interface State {
  /** Sessions with alerts that failed in a row. */
  readonly failures: number;
  /** Alerts of the next session. */
  readonly size: number;
  /** The only alert of the last session, which failed. A session without alerts tells whether the server is there. */
  readonly suspect?: OutboxEntry;
  /** How often in a row a session with one alert failed, and the one without alerts after it succeeded. */
  readonly rounds?: number;
}

const whole: State = { failures: 0, size: alertsPerSession };

/**
 * How many alerts a session has. A server may refuse a whole package because of one alert in it. So after some failures
 * sessions have fewer alerts, at last one. When a session with one alert fails, and the next one without any succeeds, twice,
 * that alert is the culprit. While a server is away, no alert is blamed.
 */
export class AlertBatches {
  readonly #states = new BoundedMap<string, State>(serverBound);

  /** Whether sessions with a server have fewer alerts than usual. */
  isReduced(server: string): boolean {
    return this.#stateOf(server).size < alertsPerSession;
  }

  /** Largest number of alerts of the next session. `notified`: the server asked for it, and must get it in any case. */
  size(server: string, notified: boolean): number {
    const { failures, size, suspect } = this.#stateOf(server);
    return suspect || (notified && failures > 0) ? 0 : size;
  }

  /** A session has failed. `alerts` are those of the session that the server has not answered. */
  failed(server: string, alerts: readonly OutboxEntry[], isAlone: boolean): void {
    const before = this.#stateOf(server);
    const { length } = alerts;
    if (length === 0) {
      // The server is away, or refuses everything.
      const { failures, size } = before;
      this.#states.set(server, { failures, size });
      return;
    }
    const failures = before.failures + 1;
    const [only] = alerts;
    if (length === 1 && only && (isAlone || failures >= failuresUntilFewer || before.size === 1))
      this.#states.set(server, { ...before, failures, suspect: only });
    else {
      const isFewer = failures >= failuresUntilFewer || before.size < alertsPerSession;
      const fewer = Math.max(1, Math.floor(length / divisor));
      this.#states.set(server, { failures, size: isFewer ? Math.min(before.size, fewer) : before.size });
    }
  }

  /** A session has succeeded. Returns the alert that is the culprit for the failure before it. */
  succeeded(server: string): OutboxEntry | undefined {
    const { size, suspect, rounds = 0, failures } = this.#stateOf(server);
    if (suspect && rounds + 1 < roundsUntilBlame)
      this.#states.set(server, { failures, size: 1, rounds: rounds + 1 });
    else if (suspect) this.#states.set(server, { failures: 0, size });
    else if (size * 2 >= alertsPerSession) this.#states.delete(server);
    else this.#states.set(server, { failures: 0, size: size * 2 });
    return suspect && rounds + 1 >= roundsUntilBlame ? suspect : undefined;
  }

  #stateOf(server: string): State {
    return this.#states.get(server) ?? whole;
  }
}
