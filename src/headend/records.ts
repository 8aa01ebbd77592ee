import type { DatabaseSync } from 'node:sqlite';
import type { Clock } from '../base/clock.ts';
import { keepLatest } from '../base/database.ts';

/** An alert that a gateway or device reported, as this server understood it. */
export interface AlertRecord {
  readonly number: number;
  /** ISO 8601, by this server's clock. */
  readonly at: string;
  /** `DeviceAttach`, `LocationUpdate`, … */
  readonly kind: string;
  /** The gateway that it came from or through. */
  readonly gateway: string;
  readonly device: string | undefined;
  readonly body: Readonly<Record<string, unknown>>;
}

/** What something that a gateway was asked to execute came to. */
export interface ResultRecord {
  readonly at: string;
  /** `CommandFanout`, `DeviceTrigger` or `ImageOperation`. */
  readonly kind: string;
  readonly gateway: string;
  /** Of the node that was executed. */
  readonly name: string;
  readonly correlator: string | undefined;
  /** XML (docs/bindings.md). */
  readonly result: string;
}

/** Alerts and results that are kept; the oldest go. */
export const recordLimits = { alerts: 10_000, results: 1000, assignments: 100_000 } as const;

/** What the reference server remembers for people and programs that ask its API. Durable and bounded. */
export class Records {
  readonly #database: DatabaseSync;
  readonly #clock: Clock;

  constructor(database: DatabaseSync, clock: Clock) {
    this.#database = database;
    this.#clock = clock;
  }

  addAlert(kind: string, gateway: string, device: string | undefined, body: object): void {
    this.#database
      .prepare('INSERT INTO received_alert (at, kind, gateway, device, body) VALUES (?, ?, ?, ?, ?)')
      .run(Math.round(this.#clock.wall()), kind, gateway, device ?? null, JSON.stringify(body));
    keepLatest(this.#database, 'received_alert', recordLimits.alerts);
  }

  /** The latest first. */
  alerts(limit: number, before = Number.MAX_SAFE_INTEGER): AlertRecord[] {
    return this.#database
      .prepare('SELECT * FROM received_alert WHERE number < ? ORDER BY number DESC LIMIT ?')
      .all(before, limit)
      .map(({ number, at, kind, gateway, device, body }) => ({
        number: Number(number),
        at: new Date(Number(at)).toISOString(),
        kind: String(kind),
        gateway: String(gateway),
        device: device === null ? undefined : String(device),
        body: JSON.parse(String(body)) as AlertRecord['body'],
      }));
  }

  /** In place of what the same node came to before. */
  putResult({ kind, gateway, name, correlator, result }: Omit<ResultRecord, 'at'>): void {
    this.#database
      .prepare(
        'INSERT OR REPLACE INTO operation_result (at, kind, gateway, name, correlator, result) VALUES (?, ?, ?, ?, ?, ?)',
      )
      .run(Math.round(this.#clock.wall()), kind, gateway, name, correlator ?? null, result);
    keepLatest(this.#database, 'operation_result', recordLimits.results);
  }

  /** Of one kind, the latest last. */
  results(kind: string): ResultRecord[] {
    return this.#database
      .prepare('SELECT * FROM operation_result WHERE kind = ? ORDER BY number')
      .all(kind)
      .map(toResult);
  }

  /** Of one node; none until it has ended. */
  result(kind: string, gateway: string, name: string): ResultRecord | undefined {
    const row = this.#database
      .prepare('SELECT * FROM operation_result WHERE kind = ? AND gateway = ? AND name = ?')
      .get(kind, gateway, name);
    return row && toResult(row);
  }

  /** The gateway that an operator chose for a device. */
  assignment(device: string): string | undefined {
    const row = this.#database.prepare('SELECT gateway FROM assignment WHERE device = ?').get(device);
    return row && String(row.gateway);
  }

  assignments(): { device: string; gateway: string }[] {
    return this.#database
      .prepare('SELECT device, gateway FROM assignment ORDER BY device')
      .all()
      .map(({ device, gateway }) => ({ device: String(device), gateway: String(gateway) }));
  }

  /** No gateway takes the choice back. False when there is no room for another. */
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

const toResult = (row: Record<string, unknown>): ResultRecord => ({
  at: new Date(Number(row.at)).toISOString(),
  kind: String(row.kind),
  gateway: String(row.gateway),
  name: String(row.name),
  correlator: row.correlator === null ? undefined : String(row.correlator),
  result: String(row.result),
});
