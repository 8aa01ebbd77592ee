import type { DatabaseSync } from 'node:sqlite';
import { transaction } from '../../base/database.ts';

/** An update of the gateway itself that has not ended yet. It outlives the restart in its middle. */
export interface UpdateRecord {
  readonly operation: 'Download' | 'Update' | 'DownloadAndUpdate';
  readonly url: string;
  /** DM server that ordered it; none when somebody at the gateway did. */
  readonly server?: string;
  readonly correlator?: string;
  readonly phase: 'downloading' | 'installing' | 'trying';
  /** What the download server called the version of what has come so far. */
  readonly validator?: string;
  /** From here on what is known when the slot was installed. */
  readonly slot?: 'A' | 'B';
  readonly version?: string;
  readonly floor?: string;
  /** Whether the broker was reached, and which devices were attached, before the restart. */
  readonly wasConnected?: boolean;
  readonly devices?: string;
}

/** At most one update is under way. */
export class UpdateRecords {
  readonly #database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  get(): UpdateRecord | undefined {
    const row = this.#database.prepare('SELECT body FROM gateway_update').get();
    return row && (JSON.parse(String(row.body)) as UpdateRecord);
  }

  put(record: UpdateRecord): void {
    this.#database
      .prepare('INSERT OR REPLACE INTO gateway_update (number, body) VALUES (1, ?)')
      .run(JSON.stringify(record));
  }

  /** It has ended; that it is told belongs to the same transaction. */
  end(tell: () => void): void {
    transaction(this.#database, () => {
      tell();
      this.#database.prepare('DELETE FROM gateway_update').run();
    });
  }
}
