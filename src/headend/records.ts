import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import { type Database, keepLatest } from '../base/database.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../base/rows.ts';
import type { GatewayAlert } from '../mo/vocabulary.ts';

/** Alerts that report the result of an operation of a gateway. */
export const resultKinds = ['CommandFanout', 'DeviceTrigger', 'ImageOperation'] as const;
export type ResultKind = (typeof resultKinds)[number];

/** Alerts that this server records: GwMO's alerts, and the result of a firmware update (FUMO). */
export type AlertKind = GatewayAlert | 'FirmwareUpdate';

/** An alert that a gateway or device sent, as this server read it. */
export interface AlertRecord {
  /** Rises with each alert. Pages of alerts are addressed by it. */
  readonly number: number;
  /** Time of receipt by this server's clock, ISO 8601. */
  readonly at: string;
  /** An {@link AlertKind}. As text, because another version of Postern may have written the row. */
  readonly kind: string;
  /** The gateway that sent the alert, or through which it came. For a firmware update: the party that was updated. */
  readonly gateway: string;
  readonly device: string | undefined;
  /** The fields of the alert. Each kind has its own. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** Result of an operation that a gateway executed. */
export interface ResultRecord {
  /** Time of receipt by this server's clock, ISO 8601. */
  readonly at: string;
  readonly kind: ResultKind;
  readonly gateway: string;
  /** Name of the operation's node on the gateway. */
  readonly name: string;
  readonly correlator: string | undefined;
  /** XML document (docs/bindings.md). */
  readonly result: string;
}

/** Rows per table. The oldest alerts and results are deleted. An assignment beyond its limit is refused. */
export const recordLimits = { alerts: 10_000, results: 1000, assignments: 100_000 } as const;

/** Alerts, operation results and gateway assignments, for the HTTP API and the policy. Durable and bounded. */
export class Records {
  readonly #database: Database;
  readonly #clock: Clock;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
    for (const table of ['received_alert', 'operation_result']) keepNumbersLow(database, table, 'number');
  }

  /** Adds an alert with the current time. `body` must be serialisable as JSON. */
  addAlert(kind: AlertKind, gateway: string, device: string | undefined, body: object): void {
    this.#database
      .prepare('INSERT INTO received_alert (at, kind, gateway, device, body) VALUES (?, ?, ?, ?, ?)')
      .run(Math.round(this.#clock.wall()), kind, gateway, device ?? null, JSON.stringify(body));
    keepLatest(this.#database, 'received_alert', recordLimits.alerts);
  }

  /** Lists alerts, the latest first: at most `limit`, and only numbers below `before`. */
  alerts(limit: number, before = Number.MAX_SAFE_INTEGER): AlertRecord[] {
    const where = 'WHERE number < ? ORDER BY number DESC LIMIT ?';
    return readRows(this.#database, alertTable, where, before, limit);
  }

  /** What is wrong with gateways that have told so by alerts: those without a connection to the broker. */
  problems(): Map<string, string> {
    const found = new Map<string, string>();
    for (const { gateway, body } of readRows(
      this.#database,
      alertTable,
      "WHERE kind = 'GatewayFault' ORDER BY number",
    ))
      if (body.kind === 'problem') found.set(gateway, String(body.reason));
      else if (body.kind === 'problem-ended') found.delete(gateway);
    return found;
  }

  /** Stores a result with the current time. It takes the place of an earlier result of the same node. */
  putResult({ kind, gateway, name, correlator, result }: Omit<ResultRecord, 'at'>): void {
    this.#database
      .prepare(
        'INSERT OR REPLACE INTO operation_result (at, kind, gateway, name, correlator, result) VALUES (?, ?, ?, ?, ?, ?)',
      )
      .run(Math.round(this.#clock.wall()), kind, gateway, name, correlator ?? null, result);
    keepLatest(this.#database, 'operation_result', recordLimits.results);
  }

  /** Forgets the result of one node. */
  removeResult(kind: ResultKind, gateway: string, name: string): void {
    this.#database
      .prepare('DELETE FROM operation_result WHERE kind = ? AND gateway = ? AND name = ?')
      .run(kind, gateway, name);
  }

  /** Lists the results of one kind, the latest last. */
  results(kind: ResultKind): ResultRecord[] {
    return readRows(this.#database, resultTable, 'WHERE kind = ? ORDER BY number', kind);
  }

  /** Returns the result of one node. Undefined until the operation has ended. */
  result(kind: ResultKind, gateway: string, name: string): ResultRecord | undefined {
    const where = 'WHERE kind = ? AND gateway = ? AND name = ?';
    return readRows(this.#database, resultTable, where, kind, gateway, name)[0];
  }

  /** Returns the gateway that an operator assigned to a device. */
  assignment(device: string): string | undefined {
    const row = this.#database.prepare('SELECT gateway FROM assignment WHERE device = ?').get(device);
    return row && String(row.gateway);
  }

  /** Lists all assignments, sorted by device. */
  assignments(): { device: string; gateway: string }[] {
    return this.#database
      .prepare('SELECT device, gateway FROM assignment ORDER BY device')
      .all()
      .map(({ device, gateway }) => ({ device: String(device), gateway: String(gateway) }));
  }

  /** Stores an assignment. `gateway` undefined removes it. False when the table is full. */
  assign(device: string, gateway: string | undefined): boolean {
    if (gateway === undefined) {
      this.#database.prepare('DELETE FROM assignment WHERE device = ?').run(device);
      return true;
    }
    const count = Number(this.#database.prepare('SELECT count(*) AS n FROM assignment').get()?.n);
    if (count >= recordLimits.assignments && this.assignment(device) === undefined) return false;
    this.#database
      .prepare('INSERT OR REPLACE INTO assignment (device, gateway) VALUES (?, ?)')
      .run(device, gateway);
    return true;
  }
}

const alertTable: ReadableTable<AlertRecord> = {
  table: 'received_alert',
  key: ['number'],
  read: (row) => ({
    number: row.integer('number'),
    at: new Date(row.time('at')).toISOString(),
    kind: row.text('kind'),
    gateway: row.text('gateway'),
    device: row.optionalText('device').device,
    body: row.json('body', v.record(v.string(), v.unknown())),
  }),
};

const resultTable: ReadableTable<ResultRecord> = {
  table: 'operation_result',
  key: ['number'],
  read: (row) => ({
    at: new Date(row.time('at')).toISOString(),
    kind: row.oneOf('kind', resultKinds),
    gateway: row.text('gateway'),
    name: row.text('name'),
    correlator: row.optionalText('correlator').correlator,
    result: row.text('result'),
  }),
};
