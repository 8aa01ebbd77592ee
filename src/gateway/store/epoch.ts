import type { Database } from '../../base/database.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError } from '../../base/errors.ts';

/** The epoch of a gateway's alerts: their sequence numbers are compared only with those of the same epoch. */
export interface Epoch {
  readonly value: string;
  /** It began with this start. */
  readonly isNew: boolean;
}

/**
 * Returns the epoch of the alerts that a gateway adds from now on. A new epoch begins where the state is new, or comes from
 * a copy, or is older than what the lock beside it remembers. Sequence numbers that such a state does not know may have been
 * used. Alerts that wait already keep the epoch in which they got their numbers. To be called once for each start.
 */
export function beginEpoch(database: Database, entropy: Entropy): Epoch {
  const lock = database.file?.lock;
  const starts = lock?.starts ?? 0;
  const row = database.prepare('SELECT value, starts FROM epoch ORDER BY first DESC LIMIT 1').get();
  const isKept = row !== undefined && Number(row.starts) === starts;
  const value = isKept ? String(row.value) : Buffer.from(entropy.bytes(8)).toString('hex');
  const next = starts + 1;
  try {
    database.transaction(() => {
      if (!isKept) add(database, value);
      database.prepare('UPDATE epoch SET starts = ?').run(next);
      dropUnused(database);
    });
    if (lock) lock.starts = next;
  } catch (thrown) {
    if (asPosternError(thrown).code !== 'storage') throw thrown;
    // On a disk that takes no writes, nothing can be added to the outbox. The next start finds what this one found.
    if (!isKept && row) return { value: String(row.value), isNew: false };
  }
  return { value, isNew: !isKept };
}

/** The next sequence number of the outbox is the first of the new epoch. */
function add(database: Database, value: string): void {
  const last = database.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").get();
  database
    .prepare('INSERT OR REPLACE INTO epoch (first, value, starts) VALUES (?, ?, 0)')
    .run(Number(last?.seq ?? 0) + 1, value);
}

/** Deletes epochs that ended before the oldest entry of the outbox: there are at most as many as waiting alerts, and one. */
function dropUnused(database: Database): void {
  const oldest = database.prepare('SELECT min(sequence) AS n FROM outbox').get()?.n;
  database
    .prepare('DELETE FROM epoch WHERE first < (SELECT max(first) FROM epoch WHERE first <= ?)')
    .run(oldest === null || oldest === undefined ? Number.MAX_SAFE_INTEGER : Number(oldest));
}
