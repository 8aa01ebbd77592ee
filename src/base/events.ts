import type { EventName, FieldsOf } from './event-table.ts';

/** Where every part of Postern says what happens: one stable name per kind of event, facts in fields. */
export interface Events {
  emit<Name extends EventName>(name: Name, fields: FieldsOf<Name>): void;
}

/** Counts events by name; the counters are the metrics. Names are those of the table, so the map is bounded. */
export class EventCounter implements Events {
  readonly #next: Events | undefined;
  readonly counts = new Map<EventName, number>();

  constructor(next?: Events) {
    this.#next = next;
  }

  emit<Name extends EventName>(name: Name, fields: FieldsOf<Name>): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    this.#next?.emit(name, fields);
  }
}

export const noEvents: Events = { emit() {} };
