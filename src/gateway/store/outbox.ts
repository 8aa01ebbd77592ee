import type { DatabaseSync } from 'node:sqlite';
import * as v from 'valibot';
import { keepLatest } from '../../base/database.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../../base/rows.ts';

/** An alert that waits for delivery to a DM server. */
export interface OutboxEntry {
  /** Rises with each entry. A number is never used twice. */
  readonly sequence: number;
  readonly kind: string;
  /** Subject of the alert: a device ID, or the name of the operation that ended. */
  readonly deviceId: string;
  /** Body as JSON; its shape depends on `kind`. */
  readonly body: string;
  /** ServerID of the recipient; absent for the gateway's own DM server. */
  readonly server?: string;
}

/**
 * Durable queue of alerts that no DM server has acknowledged yet. Only the latest alert of each kind and device is kept,
 * because it supersedes the earlier ones. At the limit, the oldest alert is deleted and counted in `dropped`.
 */
export class Outbox {
  /** Maximum number of entries. */
  readonly limit: number;
  readonly #database: DatabaseSync;
  /** Alerts deleted at the limit since the start. */
  dropped = 0;

  constructor(database: DatabaseSync, limit: number) {
    this.#database = database;
    this.limit = limit;
    keepNumbersLow(database, 'outbox', 'sequence');
  }

  get size(): number {
    return Number(this.#database.prepare('SELECT count(*) AS n FROM outbox').get()?.n);
  }

  /** Adds an alert and deletes an earlier one of the same kind and device. Joins the caller's transaction, if any. */
  add(kind: string, deviceId: string, body: string, server?: string): void {
    this.#database.prepare('DELETE FROM outbox WHERE kind = ? AND device_id = ?').run(kind, deviceId);
    this.#database
      .prepare('INSERT INTO outbox (kind, device_id, body, server) VALUES (?, ?, ?, ?)')
      .run(kind, deviceId, body, server ?? null);
    this.dropped += keepLatest(this.#database, 'outbox', this.limit);
  }

  /** ServerIDs of the recipients of all entries. `undefined` stands for the gateway's own DM server. */
  servers(): (string | undefined)[] {
    return this.#database
      .prepare('SELECT DISTINCT server FROM outbox')
      .all()
      .map(({ server }) => (server === null ? undefined : String(server)));
  }

  /** Whether an entry of any kind other than `kinds` waits. */
  hasOtherThan(kinds: readonly string[]): boolean {
    return (
      this.#database
        .prepare(`SELECT 1 FROM outbox WHERE kind NOT IN (${kinds.map(() => '?').join(', ')}) LIMIT 1`)
        .get(...kinds) !== undefined
    );
  }

  /** The oldest `count` entries for one DM server, oldest first. Without `server`: for the gateway's own. */
  peek(count: number, server?: string): OutboxEntry[] {
    return readRows(
      this.#database,
      outboxTable,
      'WHERE server IS ? ORDER BY sequence LIMIT ?',
      server ?? null,
      count,
    );
  }

  /** Sets aside an entry that cannot be made into an alert. */
  setAside(sequence: number, reason: string): void {
    const read = () => {
      throw new Error(reason);
    };
    readRows(this.#database, { ...outboxTable, read }, 'WHERE sequence = ?', sequence);
  }

  /** Deletes an entry that its DM server has acknowledged. */
  remove(sequence: number): void {
    this.#database.prepare('DELETE FROM outbox WHERE sequence = ?').run(sequence);
  }
}

const outboxTable: ReadableTable<OutboxEntry> = {
  table: 'outbox',
  key: ['sequence'],
  read: (row) => {
    row.json('body', v.looseObject({}));
    return {
      sequence: row.integer('sequence', 1),
      kind: row.text('kind'),
      deviceId: row.text('device_id'),
      body: row.text('body'),
      ...row.optionalText('server'),
    };
  },
};
