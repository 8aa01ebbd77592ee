import type { Clock } from './clock.ts';
import type { EventFields } from './event-fields.ts';
import { type EventName, type FieldsOf, isByPeer, severityOf } from './event-table.ts';
import type { Events } from './events.ts';
import { RepeatedEvents } from './repeated-events.ts';
import { boundedJson } from './safe-text.ts';
import { StandardOutput } from './standard-output.ts';

/** Numbers of the severities in log lines. `silent` is above all of them. */
const levels = { debug: 20, info: 30, warn: 40, error: 50, silent: 60 } as const;
/** Lowest severity of events that are logged. */
export type LogLevel = keyof typeof levels;

/** Takes log lines, each with its line break. */
export interface LogDestination {
  /** @param isUrgent whether the line must not wait for others */
  write(line: string, isUrgent: boolean): void;
}

/** A clock whose timers keep no process alive. */
const idleClock: Pick<Clock, 'now' | 'after'> = {
  now: () => performance.now() as ReturnType<Clock['now']>,
  after: (delay, callback) => {
    const timer = setTimeout(callback, delay).unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

/**
 * Events as JSON lines at the level that the table gives them: `event` is the name of what happened, the rest are its facts.
 * Events that peers cause are told once per cause and peer (`RepeatedEvents`); a line with `repeated` counts the others.
 */
export class LogEvents implements Events {
  level: LogLevel;
  /** Called when lines were dropped, because standard output cannot be written. */
  onError: (thrown: unknown) => void = () => {};
  readonly #party: string;
  readonly #destination: LogDestination;
  readonly #repeated: RepeatedEvents;

  /**
   * @param destination standard output when absent
   * @param clock the machine's when absent
   */
  constructor(
    level: LogLevel,
    party: string,
    destination?: LogDestination,
    clock: Pick<Clock, 'now' | 'after'> = idleClock,
  ) {
    this.level = level;
    this.#party = party;
    this.#destination = destination ?? new StandardOutput((error) => this.onError(error));
    this.#repeated = new RepeatedEvents(clock, (name, fields) => this.#write(name, fields));
  }

  emit<Name extends EventName>(name: Name, fields: FieldsOf<Name>): void {
    if (levels[severityOf(name)] < levels[this.level]) return;
    const facts: EventFields = fields;
    if (isByPeer(name) && !this.#repeated.admits(name, severityOf(name), facts)) return;
    this.#write(name, facts);
  }

  #write(name: EventName, fields: EventFields): void {
    const level = levels[severityOf(name)];
    const line = { level, time: new Date().toISOString(), party: this.#party, event: name, ...fields };
    this.#destination.write(`${boundedJson(line)}\n`, level >= levels.warn);
  }
}
