import { type DestinationStream, type Logger, pino } from 'pino';
import { type EventName, type FieldsOf, severityOf } from './event-table.ts';
import type { Events } from './events.ts';

/** Events as JSON lines at the level that the table gives them: `event` is the name of what happened, the rest are its facts. */
export class LogEvents implements Events {
  readonly #logger: Logger;

  constructor(level: string, party: string, destination?: DestinationStream) {
    const options = { level, base: { party }, timestamp: pino.stdTimeFunctions.isoTime };
    this.#logger = destination ? pino(options, destination) : pino(options);
  }

  emit<Name extends EventName>(name: Name, fields: FieldsOf<Name>): void {
    this.#logger[severityOf(name)]({ event: name, ...fields });
  }
}
