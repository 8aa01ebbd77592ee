import type { Database } from '../../base/database.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../../base/rows.ts';

/** A report that no DM server has confirmed. */
export interface StoredReport {
  readonly number: number;
  /** ServerID of the recipient. */
  readonly server: string;
  /** Values in it. */
  readonly counted: number;
  /** Values of which it says that they were dropped. */
  readonly dropped: number;
  /** Data of the alert. */
  readonly body: Uint8Array;
}

/** Durable store of the reports that have waited for a while, or when the gateway stopped. */
export class TelemetryRows {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
    keepNumbersLow(database, 'telemetry_report', 'number');
  }

  /** All reports, the oldest first. */
  all(): StoredReport[] {
    return readRows(this.#database, reportTable, 'ORDER BY number');
  }

  /**
   * Stores and deletes reports in one transaction. Returns the numbers of those that are stored, in their order.
   * @throws {PosternError} `storage`
   */
  change(added: readonly Omit<StoredReport, 'number'>[], gone: Iterable<number>): number[] {
    return this.#database.transaction(() => {
      const remove = this.#database.prepare('DELETE FROM telemetry_report WHERE number = ?');
      for (const number of gone) remove.run(number);
      const insert = this.#database.prepare(
        'INSERT INTO telemetry_report (server, counted, dropped, body) VALUES (?, ?, ?, ?)',
      );
      return added.map(({ server, counted, dropped, body }) =>
        Number(insert.run(server, counted, dropped, body).lastInsertRowid),
      );
    });
  }
}

const reportTable: ReadableTable<StoredReport> = {
  table: 'telemetry_report',
  key: ['number'],
  read: (row) => ({
    number: row.integer('number'),
    server: row.text('server'),
    counted: row.integer('counted'),
    dropped: row.integer('dropped'),
    body: row.octets('body'),
  }),
};
