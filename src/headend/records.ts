import * as v from 'valibot';
import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import { FairRows } from '../base/fair-rows.ts';
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

/**
 * Rows per table. Alerts, results and problems give way as `FairRows` says: first those of the gateway that has most. An assignment
 * beyond its limit is refused.
 */
export const recordLimits = { alerts: 10_000, results: 1000, problems: 1000, assignments: 100_000 } as const;

const alertSenders = `SELECT number, coalesce(sender, gateway) AS owner
  FROM received_alert LEFT JOIN alert_sender USING (number)`;

/** Alerts, operation results and gateway assignments, for the HTTP API and the policy. Durable and bounded. */
export class Records {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #alerts: FairRows;
  readonly #results: FairRows;
  readonly #problems: FairRows;

  constructor(database: Database, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
    for (const table of ['received_alert', 'operation_result', 'gateway_problem'])
      keepNumbersLow(database, table, 'number');
    const { alerts, results, problems } = recordLimits;
    const ownersIn = (table: string, owner: string) => `SELECT number, ${owner} AS owner FROM ${table}`;
    this.#alerts = new FairRows(database, 'received_alert', alerts, alertSenders);
    this.#results = new FairRows(
      database,
      'operation_result',
      results,
      ownersIn('operation_result', 'gateway'),
    );
    this.#problems = new FairRows(
      database,
      'gateway_problem',
      problems,
      ownersIn('gateway_problem', 'sender'),
    );
  }

  /**
   * Adds an alert with the current time. `body` must be serialisable as JSON.
   * @param sender the party that sent it, with an account here; and behind `/` the child that told it to this party
   */
  addAlert(
    kind: AlertKind,
    gateway: string,
    device: string | undefined,
    body: object,
    sender: string = gateway,
  ): void {
    const { lastInsertRowid } = this.#database
      .prepare('INSERT INTO received_alert (at, kind, gateway, device, body) VALUES (?, ?, ?, ?, ?)')
      .run(Math.round(this.#clock.wall()), kind, gateway, device ?? null, JSON.stringify(body));
    if (sender !== gateway)
      this.#database
        .prepare('INSERT OR REPLACE INTO alert_sender (number, sender) VALUES (?, ?)')
        .run(lastInsertRowid, sender);
    this.#alerts.added();
  }

  /** Lists alerts, the latest first: at most `limit`, and only numbers below `before`. */
  alerts(limit: number, before = Number.MAX_SAFE_INTEGER): AlertRecord[] {
    const where = 'WHERE number < ? ORDER BY number DESC LIMIT ?';
    return readRows(this.#database, alertTable, where, before, limit);
  }

  /** What is wrong with gateways that have told so by alerts: those without a connection to the broker. */
  problems(): Map<string, string> {
    return new Map(readRows(this.#database, problemTable));
  }

  /** Whether a gateway has told of a problem that is not over. */
  hasProblem(gateway: string): boolean {
    const found = this.#database.prepare('SELECT 1 FROM gateway_problem WHERE gateway = ?').get(gateway);
    return found !== undefined;
  }

  /**
   * Stores what is wrong with a gateway. `reason` undefined: nothing is any more.
   * @param sender as of `addAlert`
   */
  putProblem(gateway: string, sender: string, reason: string | undefined): void {
    if (reason === undefined) {
      this.#database.prepare('DELETE FROM gateway_problem WHERE gateway = ?').run(gateway);
      return;
    }
    this.#database
      .prepare('INSERT OR REPLACE INTO gateway_problem (gateway, sender, reason) VALUES (?, ?, ?)')
      .run(gateway, sender, reason);
    this.#problems.added();
  }

  /** Stores a result with the current time. It takes the place of an earlier result of the same node. */
  putResult({ kind, gateway, name, correlator, result }: Omit<ResultRecord, 'at'>): void {
    this.#database
      .prepare(
        'INSERT OR REPLACE INTO operation_result (at, kind, gateway, name, correlator, result) VALUES (?, ?, ?, ?, ?, ?)',
      )
      .run(Math.round(this.#clock.wall()), kind, gateway, name, correlator ?? null, result);
    this.#results.added();
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

const problemTable: ReadableTable<readonly [string, string]> = {
  table: 'gateway_problem',
  key: ['number'],
  read: (row) => [row.text('gateway'), row.text('reason')],
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
