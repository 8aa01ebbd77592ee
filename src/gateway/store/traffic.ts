import * as v from 'valibot';
import type { Database } from '../../base/database.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';

/** What octets on the uplink are for. `connection`: keep-alives, acknowledgements, TLS, and the headers of MQTT. */
export const trafficKinds = ['alerts', 'orders', 'telemetry', 'images', 'connection'] as const;
export type TrafficKind = (typeof trafficKinds)[number];

/** Octets of TCP connections, without the headers of TCP and IP. */
export interface Octets {
  up: number;
  down: number;
}

/** What was carried in one day or one month. */
export interface TrafficPeriod {
  /** When the day or month began by the machine's clock: milliseconds since 1970, UTC. */
  start: number;
  /** Milliseconds that the gateway has run in it. */
  elapsed: number;
  readonly octets: Record<TrafficKind, Octets>;
}

export type TrafficRecord = Readonly<Record<'day' | 'month', TrafficPeriod>>;

export const emptyPeriod = (start: number): TrafficPeriod => ({
  start,
  elapsed: 0,
  octets: Object.fromEntries(
    trafficKinds.map((kind) => [kind, { up: 0, down: 0 }]),
  ) as TrafficPeriod['octets'],
});

/**
 * A count may be negative: a package that is under way at midnight is counted as connection in one day, and for its kind in
 * the next.
 */
const isCount = (value: unknown): value is number => Number.isSafeInteger(value);
const isPeriod = (value: unknown): value is TrafficPeriod => {
  const { start, elapsed, octets } = (value ?? {}) as Partial<TrafficPeriod>;
  return (
    Number.isFinite(start) &&
    Number.isFinite(elapsed) &&
    trafficKinds.every((kind) => isCount(octets?.[kind]?.up) && isCount(octets?.[kind]?.down))
  );
};

/** The month does not depend on whether the day can be read, and the other way round. */
const periods = v.pipe(
  v.object({ day: v.unknown(), month: v.unknown() }),
  v.check(({ day, month }) => isPeriod(day) || isPeriod(month)),
  v.transform(({ day, month }) => ({
    ...(isPeriod(day) && { day }),
    ...(isPeriod(month) && { month }),
  })),
);
const trafficTable: ReadableTable<Partial<TrafficRecord>> = {
  table: 'traffic',
  key: ['number'],
  read: (row) => row.json('body', periods),
};

/** Durable counters of the uplink, in one row. */
export class TrafficRecords {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Undefined when nothing was counted yet, or the row cannot be read. A period that cannot be read is absent. */
  get(): Partial<TrafficRecord> | undefined {
    return readRows(this.#database, trafficTable)[0];
  }

  /** @throws {PosternError} `storage` */
  put(record: TrafficRecord): void {
    this.#database
      .prepare('INSERT OR REPLACE INTO traffic (number, body) VALUES (1, ?)')
      .run(JSON.stringify(record));
  }
}
