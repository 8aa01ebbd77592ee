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

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isPeriod = (value: unknown): value is TrafficPeriod => {
  const { start, elapsed, octets } = (value ?? {}) as Partial<TrafficPeriod>;
  return (
    Number.isFinite(start) &&
    Number.isFinite(elapsed) &&
    trafficKinds.every((kind) => isCount(octets?.[kind]?.up) && isCount(octets?.[kind]?.down))
  );
};

const period = v.custom<TrafficPeriod>(isPeriod);
const trafficTable: ReadableTable<TrafficRecord> = {
  table: 'traffic',
  key: ['number'],
  read: (row) => row.json('body', v.object({ day: period, month: period })),
};

/** Durable counters of the uplink, in one row. */
export class TrafficRecords {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Undefined when nothing was counted yet, or the row cannot be read. */
  get(): TrafficRecord | undefined {
    return readRows(this.#database, trafficTable)[0];
  }

  /** @throws {PosternError} `storage` */
  put(record: TrafficRecord): void {
    this.#database
      .prepare('INSERT OR REPLACE INTO traffic (number, body) VALUES (1, ?)')
      .run(JSON.stringify(record));
  }
}
