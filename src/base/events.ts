/** Fields of an event: device and session IDs, codes, counts. Never a secret, a nonce or a payload. */
export type EventFields = Readonly<Record<string, string | number | boolean | undefined>>;
export type Severity = 'debug' | 'info' | 'warn' | 'error';

/** Where every part of Postern says what happens: one stable name per kind of event, facts in fields. */
export interface Events {
  emit(severity: Severity, name: string, fields?: EventFields): void;
}

/** Counts events by name; the counters are the metrics. Names are compile-time constants, so the map is bounded. */
export class EventCounter implements Events {
  readonly #next: Events | undefined;
  readonly counts = new Map<string, number>();

  constructor(next?: Events) {
    this.#next = next;
  }

  emit(severity: Severity, name: string, fields?: EventFields): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    this.#next?.emit(severity, name, fields);
  }
}

export const noEvents: Events = { emit() {} };
