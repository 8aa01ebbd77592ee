import type { EventFields, Severity } from '../src/base/event-fields.ts';
import { type EventName, type FieldsOf, severityOf } from '../src/base/event-table.ts';
import type { Events } from '../src/base/events.ts';

/** An event that was recorded. */
export interface Recorded {
  readonly severity: Severity;
  readonly name: EventName;
  readonly fields: EventFields;
}

/** Values that fields of an event are to have. */
type Wanted<Name extends EventName> = {
  readonly [Key in keyof FieldsOf<Name>]?: FieldsOf<Name>[Key] | undefined;
};

/** Keeps what happens, and lets a test wait for it: the only way in which tests of running parties synchronise. */
export class EventRecorder implements Events {
  /** In the order of their emission. */
  readonly all: Recorded[] = [];
  readonly #broken = new Set<EventName>();
  readonly #waiting = new Set<{ fits: (event: Recorded) => boolean; resolve: (event: Recorded) => void }>();

  /** Throws at the next event of each of these names, as an error of the program at that place would. */
  breakAt(...names: readonly EventName[]): void {
    for (const name of names) this.#broken.add(name);
  }

  emit(name: EventName, fields: EventFields): void {
    const event = { severity: severityOf(name), name, fields };
    this.all.push(event);
    for (const waiter of this.#waiting)
      if (waiter.fits(event)) {
        this.#waiting.delete(waiter);
        waiter.resolve(event);
      }
    if (process.env.POSTERN_TEST_LOG) console.error(event.severity, name, JSON.stringify(fields));
    if (this.#broken.delete(name)) throw new Error(`broken at ${name}`);
  }

  count(name: EventName): number {
    return this.all.filter((event) => event.name === name).length;
  }

  /** The event, whether it has happened already or is to come. */
  async until<Name extends EventName>(name: Name, fields: Wanted<Name> = {}): Promise<Recorded> {
    const fits = fitting(name, fields);
    return this.all.find(fits) ?? (await this.#next(fits));
  }

  /** The event after now. */
  async next<Name extends EventName>(name: Name, fields: Wanted<Name> = {}): Promise<Recorded> {
    return await this.#next(fitting(name, fields));
  }

  /** Resolves with the event after now, whatever it is. */
  async nextOfAny(): Promise<Recorded> {
    return await this.#next(() => true);
  }

  #next(fits: (event: Recorded) => boolean): Promise<Recorded> {
    const { promise, resolve } = Promise.withResolvers<Recorded>();
    this.#waiting.add({ fits, resolve });
    return promise;
  }
}

const fitting =
  <Name extends EventName>(name: Name, wanted: Wanted<Name>) =>
  (event: Recorded): boolean =>
    event.name === name && Object.entries(wanted).every(([key, value]) => event.fields[key] === value);
