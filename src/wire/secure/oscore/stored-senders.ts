import type { Clock } from '../../../base/clock.ts';
import { type Database, keepLatest } from '../../../base/database.ts';
import { asPosternError } from '../../../base/errors.ts';
import { type ReadableTable, type Row, readRows } from '../../../base/rows.ts';
import { numbersByClock } from '../numbers-by-clock.ts';
import type { SenderRecord, SenderStore } from './contexts.ts';

/** SQL for the reservations of sequence numbers: a step of the schema of each party with OSCORE. */
export const senderTable = `CREATE TABLE oscore_sender (
  number INTEGER PRIMARY KEY AUTOINCREMENT, mark TEXT NOT NULL UNIQUE, reserved INTEGER NOT NULL, address TEXT, port INTEGER
) STRICT;`;

/** Rows that are kept, those written last. A context that comes back after its row was deleted begins by the clock. */
const mostSenders = 262_144;

/** Durable store of the reservations of sequence numbers. A row never says less than it said before. */
export class StoredSenders implements SenderStore {
  readonly #database: Database;
  readonly #known: Map<string, SenderRecord>;

  /**
   * @param isNew the state is new or went back in time: what it says of sequence numbers may be too low
   */
  constructor(database: Database, clock: Pick<Clock, 'wall'>, isNew = false) {
    this.#database = database;
    const least = isNew ? numbersByClock(clock) : 0;
    try {
      if (isNew) database.prepare('UPDATE oscore_sender SET reserved = max(reserved, ?)').run(least);
      keepLatest(database, 'oscore_sender', mostSenders);
    } catch (thrown) {
      // A party starts on a full disk too. What is used then has to be written before.
      if (asPosternError(thrown).code !== 'storage') throw thrown;
    }
    this.#known = new Map(
      readRows(database, table).map(([mark, { reserved, place }]) => [
        mark,
        { reserved: Math.max(reserved, least), place },
      ]),
    );
  }

  get(mark: string): SenderRecord | undefined {
    return this.#known.get(mark);
  }

  put(mark: string, record: SenderRecord): void {
    const { place } = record;
    const reserved = Math.max(record.reserved, this.#known.get(mark)?.reserved ?? 0);
    this.#database
      .prepare('INSERT OR REPLACE INTO oscore_sender (mark, reserved, address, port) VALUES (?, ?, ?, ?)')
      .run(mark, reserved, place?.address ?? null, place?.port ?? null);
    this.#known.set(mark, { reserved, place });
  }

  settled(): Promise<void> {
    return this.#database.settled();
  }
}

const table: ReadableTable<[string, SenderRecord]> = {
  table: 'oscore_sender',
  key: ['number'],
  read: (row: Row) => {
    const { address } = row.optionalText('address');
    const { port } = row.optionalInteger('port');
    const place = address === undefined || port === undefined ? undefined : { address, port };
    return [row.text('mark'), { reserved: row.integer('reserved'), place }];
  },
};
