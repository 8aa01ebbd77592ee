import type { DatabaseSync } from 'node:sqlite';

/** An alert on its way to the DM server. `sequence` rises and is never used twice. */
export interface OutboxEntry {
  readonly sequence: number;
  readonly kind: string;
  readonly deviceId: string;
  /** JSON. */
  readonly body: string;
}

/**
 * Alerts that the DM server has not acknowledged. Durable and bounded: of one kind and device only the latest is kept,
 * since it says all that the earlier ones said; at the bound the oldest goes, and `dropped` counts it.
 */
export class Outbox {
  readonly limit: number;
  readonly #database: DatabaseSync;
  dropped = 0;

  constructor(database: DatabaseSync, limit: number) {
    this.#database = database;
    this.limit = limit;
  }

  get size(): number {
    return Number(this.#database.prepare('SELECT count(*) AS n FROM outbox').get()?.n);
  }

  /** Part of the caller's transaction, when there is one. */
  add(kind: string, deviceId: string, body: string): void {
    this.#database.prepare('DELETE FROM outbox WHERE kind = ? AND device_id = ?').run(kind, deviceId);
    this.#database
      .prepare('INSERT INTO outbox (kind, device_id, body) VALUES (?, ?, ?)')
      .run(kind, deviceId, body);
    const { changes } = this.#database
      .prepare(
        'DELETE FROM outbox WHERE sequence IN (SELECT sequence FROM outbox ORDER BY sequence DESC LIMIT -1 OFFSET ?)',
      )
      .run(this.limit);
    this.dropped += Number(changes);
  }

  /** The oldest first. */
  peek(count: number): OutboxEntry[] {
    return this.#database
      .prepare('SELECT * FROM outbox ORDER BY sequence LIMIT ?')
      .all(count)
      .map((row) => ({
        sequence: Number(row.sequence),
        kind: String(row.kind),
        deviceId: String(row.device_id),
        body: String(row.body),
      }));
  }

  /** The server has it. */
  remove(sequence: number): void {
    this.#database.prepare('DELETE FROM outbox WHERE sequence = ?').run(sequence);
  }
}
