import { type DestinationStream, type Logger, pino } from 'pino';
import type { EventFields, Events, Severity } from './events.ts';

/** Events as JSON lines: `event` is the name of what happened, the rest are its facts. */
export class LogEvents implements Events {
  readonly #logger: Logger;

  constructor(level: string, party: string, destination?: DestinationStream) {
    const options = { level, base: { party }, timestamp: pino.stdTimeFunctions.isoTime };
    this.#logger = destination ? pino(options, destination) : pino(options);
  }

  emit(severity: Severity, name: string, fields: EventFields = {}): void {
    this.#logger[severity]({ event: name, ...fields });
  }
}
