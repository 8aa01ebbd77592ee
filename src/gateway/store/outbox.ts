import type { DatabaseSync } from 'node:sqlite';
import { keepLatest } from '../../base/database.ts';

/** An alert on its way to the DM server. `sequence` rises and is never used twice. */
export interface OutboxEntry {
  readonly sequence: number;
  readonly kind: string;
  readonly deviceId: string;
  /** JSON. */
  readonly body: string;
  /** ServerID of the DM server that it is for; the gateway's own when absent. */
  readonly server?: string;
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
  add(kind: string, deviceId: string, body: string, server?: string): void {
    this.#database.prepare('DELETE FROM outbox WHERE kind = ? AND device_id = ?').run(kind, deviceId);
    this.#database
      .prepare('INSERT INTO outbox (kind, device_id, body, server) VALUES (?, ?, ?, ?)')
      .run(kind, deviceId, body, server ?? null);
    this.dropped += keepLatest(this.#database, 'outbox', this.limit);
  }

  /** DM servers that something waits for; undefined is the gateway's own. */
  servers(): (string | undefined)[] {
    return this.#database
      .prepare('SELECT DISTINCT server FROM outbox')
      .all()
      .map(({ server }) => (server === null ? undefined : String(server)));
  }

  /** Whether something of another kind waits. */
  hasOtherThan(kinds: readonly string[]): boolean {
    return (
      this.#database
        .prepare(`SELECT 1 FROM outbox WHERE kind NOT IN (${kinds.map(() => '?').join(', ')}) LIMIT 1`)
        .get(...kinds) !== undefined
    );
  }

  /** What waits for one DM server, the oldest first. */
  peek(count: number, server?: string): OutboxEntry[] {
    return this.#database
      .prepare('SELECT * FROM outbox WHERE server IS ? ORDER BY sequence LIMIT ?')
      .all(server ?? null, count)
      .map((row) => ({
        sequence: Number(row.sequence),
        kind: String(row.kind),
        deviceId: String(row.device_id),
        body: String(row.body),
        ...(server !== undefined && { server }),
      }));
  }

  /** The server has it. */
  remove(sequence: number): void {
    this.#database.prepare('DELETE FROM outbox WHERE sequence = ?').run(sequence);
  }
}
