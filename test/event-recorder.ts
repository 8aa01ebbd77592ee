import type { EventFields, Events, Severity } from '../src/base/events.ts';

/** An event that was recorded. */
export interface Recorded {
  readonly severity: Severity;
  readonly name: string;
  readonly fields: EventFields;
}

/**
 * Records events, and lets a test wait for them. Tests of running parties synchronize in this way only, never by sleeping.
 * With POSTERN_TEST_LOG set, events are also printed.
 */
export class EventRecorder implements Events {
  /** In the order of their emission. */
  readonly all: Recorded[] = [];
  readonly #waiting = new Set<{ fits: (event: Recorded) => boolean; resolve: (event: Recorded) => void }>();

  emit(severity: Severity, name: string, fields: EventFields = {}): void {
    const event = { severity, name, fields };
    this.all.push(event);
    for (const waiter of this.#waiting)
      if (waiter.fits(event)) {
        this.#waiting.delete(waiter);
        waiter.resolve(event);
      }
    if (process.env.POSTERN_TEST_LOG) console.error(severity, name, JSON.stringify(fields));
  }

  /** How many events of this name were recorded. */
  count(name: string): number {
    return this.all.filter((event) => event.name === name).length;
  }

  /** Resolves with the first event of this name and with these fields, whether it is recorded already or comes later. */
  async until(name: string, fields: EventFields = {}): Promise<Recorded> {
    const fits = (event: Recorded) =>
      event.name === name && Object.entries(fields).every(([key, value]) => event.fields[key] === value);
    return this.all.find(fits) ?? (await this.#next(fits));
  }

  /** Resolves with the next event of this name and with these fields. Earlier events do not count. */
  async next(name: string, fields: EventFields = {}): Promise<Recorded> {
    return await this.#next(
      (event) =>
        event.name === name && Object.entries(fields).every(([key, value]) => event.fields[key] === value),
    );
  }

  #next(fits: (event: Recorded) => boolean): Promise<Recorded> {
    const { promise, resolve } = Promise.withResolvers<Recorded>();
    this.#waiting.add({ fits, resolve });
    return promise;
  }
}
