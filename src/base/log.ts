import { type EventName, type FieldsOf, severityOf } from './event-table.ts';
import type { Events } from './events.ts';
import { StandardOutput } from './standard-output.ts';

/** Numbers of the severities in log lines. `silent` is above all of them. */
const levels = { debug: 20, info: 30, warn: 40, error: 50, silent: 60 } as const;
/** Lowest severity of events that are logged. */
export type LogLevel = keyof typeof levels;

/** Takes log lines, each with its line break. */
export interface LogDestination {
  write(line: string): void;
}

/** Events as JSON lines at the level that the table gives them: `event` is the name of what happened, the rest are its facts. */
export class LogEvents implements Events {
  level: LogLevel;
  /** Called when lines were dropped, because standard output cannot be written. */
  onError: (thrown: unknown) => void = () => {};
  readonly #party: string;
  readonly #destination: LogDestination;

  /** @param destination standard output when absent */
  constructor(level: LogLevel, party: string, destination?: LogDestination) {
    this.level = level;
    this.#party = party;
    this.#destination = destination ?? new StandardOutput((error) => this.onError(error));
  }

  emit<Name extends EventName>(name: Name, fields: FieldsOf<Name>): void {
    const level = levels[severityOf(name)];
    if (level < levels[this.level]) return;
    const line = { level, time: new Date().toISOString(), party: this.#party, event: name, ...fields };
    this.#destination.write(`${JSON.stringify(line)}\n`);
  }
}
