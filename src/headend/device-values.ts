import type { Database } from '../base/database.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../base/rows.ts';
import type { DeviceValue, TelemetryValue } from '../mo/telemetry-report.ts';

/**
 * Rows of each table. When one is full, the oldest values of the gateway with the most rows go first; of those, the oldest of a device
 * that has more than half of them.
 */
export const valueRows = { latest: 100_000, history: 100_000 } as const;
/** Part of the rows that stays when a table is full. The rest goes at once, because the gateways are counted each time. */
const kept = 31 / 32;

/** Types of values. `integer`: one that a number of JSON does not hold exactly, as text. `octets`: as base64. */
export const valueTypes = ['number', 'integer', 'string', 'boolean', 'octets'] as const;
export type ValueType = (typeof valueTypes)[number];

/** A value of a device. */
export interface ValueRecord {
  /** Rises with each value that arrives. Pages of the history are addressed by it. */
  readonly number: number;
  /** Such as `/3303/0/5700` or `/Sensor/Temp`. */
  readonly path: string;
  readonly type: ValueType;
  readonly value: string | number | boolean;
  /** When the device had this value, as the device or its gateway says; not after `received`. ISO 8601. */
  readonly at: string;
  /** When this server received it. ISO 8601. */
  readonly received: string;
  /** The gateway that reported it. */
  readonly gateway: string;
}

/** What is asked of a history. Times are in milliseconds since 1970. */
export interface HistoryQuery {
  readonly from?: number | undefined;
  readonly to?: number | undefined;
  readonly limit: number;
  readonly before?: number | undefined;
}

function storedForm(value: TelemetryValue): readonly [ValueType, string] {
  switch (typeof value) {
    case 'number':
      return ['number', String(value)];
    case 'bigint':
      return Number.isSafeInteger(Number(value)) ? ['number', String(value)] : ['integer', String(value)];
    case 'string':
      return ['string', value];
    case 'boolean':
      return ['boolean', String(value)];
    default:
      return ['octets', Buffer.from(value).toString('base64')];
  }
}

/** The latest value of each path of each device, and a history of all. Durable and bounded. */
export class DeviceValues {
  readonly #database: Database;
  /** At least the number of rows, by table. */
  readonly #counts: Record<keyof typeof tables, number> = {
    latest: valueRows.latest,
    history: valueRows.history,
  };

  constructor(database: Database) {
    this.#database = database;
    for (const table of Object.values(tables)) keepNumbersLow(database, table, 'number');
  }

  /**
   * Stores values that a gateway has reported. Joins the caller's transaction.
   * @param received milliseconds since 1970
   */
  add(gateway: string, values: readonly DeviceValue[], received: number): void {
    const history = this.#database.prepare(
      'INSERT INTO value_history (device, path, at, received, gateway, type, value) VALUES (?, ?, ?, ?, ?, ?, ?)',
    );
    const latest = this.#database.prepare(
      `INSERT INTO latest_value (device, path, at, received, gateway, type, value) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (device, path) DO UPDATE SET at = excluded.at, received = excluded.received, gateway = excluded.gateway,
         type = excluded.type, value = excluded.value WHERE excluded.at >= at`,
    );
    for (const { device, path, value, at } of values) {
      // A clock that is ahead would keep a value the latest one for as long.
      const row = [device, path, Math.min(at, received), received, gateway, ...storedForm(value)] as const;
      history.run(...row);
      latest.run(...row);
    }
    for (const name of ['latest', 'history'] as const) this.#added(name, values.length);
  }

  /** The latest value of each path of a device. */
  latest(device: string): ValueRecord[] {
    return readRows(this.#database, latestTable, 'WHERE device = ? ORDER BY path', device);
  }

  /** Earlier values of a path, the latest first. */
  history(device: string, path: string, { from, to, limit, before }: HistoryQuery): ValueRecord[] {
    return readRows(
      this.#database,
      historyTable,
      'WHERE device = ? AND path = ? AND at BETWEEN ? AND ? AND number < ? ORDER BY number DESC LIMIT ?',
      device,
      path,
      from ?? 0,
      to ?? Number.MAX_SAFE_INTEGER,
      before ?? Number.MAX_SAFE_INTEGER,
      limit,
    );
  }

  #added(name: keyof typeof tables, count: number): void {
    const limit = valueRows[name];
    const before = this.#counts[name];
    this.#database.onRollback(() => {
      this.#counts[name] = limit;
    });
    this.#counts[name] = before + count;
    if (this.#counts[name] > limit) this.#counts[name] = this.#makeRoom(tables[name], limit);
  }

  /** Returns the number of rows after that. */
  #makeRoom(table: string, limit: number): number {
    const found = this.#database
      .prepare(`SELECT gateway, count(*) AS n FROM ${table} GROUP BY gateway`)
      .all();
    const counts = new Map(found.map(({ gateway, n }) => [String(gateway), Number(n)]));
    let sum = [...counts.values()].reduce((one, other) => one + other, 0);
    if (sum <= limit) return sum;
    const rest = Math.floor(limit * kept);
    while (sum > rest) {
      const [[most, count], [, next] = ['', 0]] = [...counts].toSorted(([, a], [, b]) => b - a) as [
        [string, number],
        [string, number]?,
      ];
      const surplus = Math.min(sum - rest, Math.max(count - next, Math.ceil(count / 32)));
      this.#remove(table, most, count, surplus);
      counts.set(most, count - surplus);
      sum -= surplus;
    }
    return sum;
  }

  /** Removes so many values of a gateway that has `count`. */
  #remove(table: string, gateway: string, count: number, surplus: number): void {
    const top = `SELECT device, count(*) AS n FROM ${table} WHERE gateway = ? GROUP BY device ORDER BY n DESC LIMIT 1`;
    const [heaviest] = this.#database.prepare(top).all(gateway);
    // So many less, and it has half of what is left.
    const excess = Math.max(0, 2 * Number(heaviest?.n ?? 0) - count);
    const ofHeaviest = Math.min(surplus, excess);
    const remove = (where: string, ...values: (string | number)[]) =>
      this.#database
        .prepare(
          `DELETE FROM ${table} WHERE number IN (SELECT number FROM ${table} WHERE ${where} ORDER BY received LIMIT ?)`,
        )
        .run(...values);
    if (ofHeaviest > 0) remove('gateway = ? AND device = ?', gateway, String(heaviest?.device), ofHeaviest);
    if (surplus > ofHeaviest) remove('gateway = ?', gateway, surplus - ofHeaviest);
  }
}

const tables = { latest: 'latest_value', history: 'value_history' } as const;

const valueTable = (table: string): ReadableTable<ValueRecord> => ({
  table,
  key: ['number'],
  read: (row) => {
    const type = row.oneOf('type', valueTypes);
    const text = row.text('value');
    const value = type === 'number' ? Number(text) : type === 'boolean' ? text === 'true' : text;
    if (Number.isNaN(value)) throw new Error('value is no number');
    return {
      number: row.integer('number'),
      path: row.text('path'),
      type,
      value,
      at: new Date(row.time('at')).toISOString(),
      received: new Date(row.time('received')).toISOString(),
      gateway: row.text('gateway'),
    };
  },
});
const latestTable = valueTable(tables.latest);
const historyTable = valueTable(tables.history);
