import type { EventFields, Events, Severity } from '../src/base/events.ts';

export interface Recorded {
  readonly severity: Severity;
  readonly name: string;
  readonly fields: EventFields;
}

/** Keeps what happens, and lets a test wait for it: the only way in which tests of running parties synchronise. */
export class EventRecorder implements Events {
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

  count(name: string): number {
    return this.all.filter((event) => event.name === name).length;
  }

  /** The event, whether it has happened already or is to come. */
  async until(name: string, fields: EventFields = {}): Promise<Recorded> {
    const fits = (event: Recorded) =>
      event.name === name && Object.entries(fields).every(([key, value]) => event.fields[key] === value);
    return this.all.find(fits) ?? (await this.#next(fits));
  }

  /** The event after now. */
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
