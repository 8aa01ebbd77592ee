import type { Database } from '../../base/database.ts';
import type { Entropy } from '../../base/entropy.ts';
import { asPosternError } from '../../base/errors.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../../base/rows.ts';
import type { AlertRun } from '../../mo/alert-number.ts';
import { isEpoch } from '../../wire/tunnel/gateway-state.ts';

/**
 * The epoch of a gateway's alerts: their sequence numbers are compared only with those of the same epoch. A new epoch begins
 * where the state is new, or comes from a copy, or is older than what the lock beside it remembers. Sequence numbers that such
 * a state does not know may have been used. Alerts that wait already keep the epoch in which they got their numbers.
 */
export class Epoch {
  /** It begins with this start. */
  readonly isNew: boolean;
  /** This start, as alerts tell it that get their numbers from now on. */
  readonly run: AlertRun;
  readonly #database: Database;
  readonly #entropy: Entropy;
  #value: string;
  /** The epoch holds for the numbers of this run alone. */
  #isOfRun: boolean;
  #isStored = false;

  /** To be made once for each start of the gateway. */
  constructor(database: Database, entropy: Entropy) {
    this.#database = database;
    this.#entropy = entropy;
    const starts = database.file?.lock.starts ?? 0;
    keepNumbersLow(database, 'outbox', 'sequence');
    const latest = readRows(database, epochTable(nextNumber(database)), 'ORDER BY first').at(-1);
    this.isNew = latest?.starts !== starts;
    this.#isOfRun = this.isNew;
    this.#value = latest && !this.isNew ? latest.value : this.#random();
    this.run = { id: this.#random(), start: nextNumber(database) - 1 };
    try {
      this.store();
    } catch (thrown) {
      // A gateway starts on a full disk too. Whatever adds an alert stores the epoch first.
      if (asPosternError(thrown).code !== 'storage') throw thrown;
    }
  }

  get value(): string {
    return this.#value;
  }

  #random(): string {
    return Buffer.from(this.#entropy.bytes(8)).toString('hex');
  }

  /**
   * Begins a new epoch for the numbers of this run: a server knows them from another run, which this state has forgotten.
   * Returns false when they have an epoch of their own already.
   * @throws {PosternError} `storage`
   */
  renew(): boolean {
    if (this.#isOfRun) return false;
    const database = this.#database;
    const value = this.#random();
    database.transaction(() => {
      this.store();
      database
        .prepare('INSERT OR REPLACE INTO epoch (first, value, starts) SELECT ?, ?, max(starts) FROM epoch')
        .run(this.run.start + 1, value);
      database.afterCommit(() => {
        this.#value = value;
        this.#isOfRun = true;
      });
    });
    return true;
  }

  /**
   * Stores the epoch where that was not done yet. Joins the caller's transaction.
   * @throws {PosternError} `storage`
   */
  store(): void {
    if (this.#isStored) return;
    const database = this.#database;
    const lock = database.file?.lock;
    const next = (lock?.starts ?? 0) + 1;
    database.transaction(() => {
      if (this.isNew) add(database, this.#value);
      database.prepare('UPDATE epoch SET starts = ?').run(next);
      dropUnused(database);
      database.onRollback(() => {
        this.#isStored = false;
      });
      this.#isStored = true;
      database.afterCommit(() => {
        if (lock) lock.starts = next;
      });
    });
  }
}

/** The next sequence number of the outbox is the first of the new epoch. */
function add(database: Database, value: string): void {
  database
    .prepare('INSERT OR REPLACE INTO epoch (first, value, starts) VALUES (?, ?, 0)')
    .run(nextNumber(database), value);
}

/** Deletes epochs that ended before the oldest entry of the outbox: there are at most as many as waiting alerts, and one. */
function dropUnused(database: Database): void {
  const oldest = database.prepare('SELECT min(sequence) AS n FROM outbox').get()?.n;
  database
    .prepare('DELETE FROM epoch WHERE first < (SELECT max(first) FROM epoch WHERE first <= ?)')
    .run(oldest === null || oldest === undefined ? Number.MAX_SAFE_INTEGER : Number(oldest));
}

/** The next sequence number of the outbox. */
function nextNumber(database: Database): number {
  const last = database.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").get();
  return Number(last?.seq ?? 0) + 1;
}

/** @param next the next sequence number of the outbox: no epoch begins after it */
const epochTable = (next: number): ReadableTable<{ readonly value: string; readonly starts: number }> => ({
  table: 'epoch',
  key: ['first'],
  read: (row) => {
    row.integer('first', 1, next);
    const value = row.text('value');
    if (!isEpoch(value)) throw new Error('value is not an epoch');
    // -1 in a copy: whichever start uses it begins a new epoch.
    return { value, starts: row.integer('starts', -1) };
  },
});
