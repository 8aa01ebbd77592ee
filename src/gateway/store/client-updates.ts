import * as v from 'valibot';
import { type Database, keepLatest, transaction } from '../../base/database.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';

/** Operations of FUMO. */
export const updateOperations = ['Download', 'Update', 'DownloadAndUpdate'] as const;
export type UpdateOperation = (typeof updateOperations)[number];

/**
 * How far the update of a client has come.
 * - `ordered`: an Exec was accepted.
 * - `given`: the client has the URI of the package, or the package itself.
 * - `downloaded`: the client has said that it has the package. It may have been told to install it.
 */
const stages = ['ordered', 'given', 'downloaded'] as const;

/** A firmware update of an LwM2M client that has not ended. */
export interface ClientUpdate {
  readonly deviceId: string;
  readonly operation: UpdateOperation;
  /** URI of the package. Absent for `Update`. */
  readonly url?: string;
  /** Correlator of the Exec. */
  readonly correlator?: string;
  readonly stage: (typeof stages)[number];
}

/** Maximum number of leaves that are remembered. */
const settingsLimit = 16_384;

/**
 * Durable store of what DM servers order at `./FwUpdate` of LwM2M clients: the updates under way, one for each client, and the leaves
 * that were set. A method that writes throws a `PosternError` `storage` when the disk takes nothing.
 */
export class ClientUpdates {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** The updates under way. */
  all(): ClientUpdate[] {
    return readRows(this.#database, updateTable);
  }

  /** Stores an update under way, or how far it has come. */
  put({ deviceId, ...body }: ClientUpdate): void {
    this.#database
      .prepare('INSERT OR REPLACE INTO client_update (device_id, body) VALUES (?, ?)')
      .run(deviceId, JSON.stringify(body));
  }

  /** Deletes an update, and runs `tell` in the same transaction, which reports its result. */
  end(deviceId: string, tell: () => void): void {
    transaction(this.#database, () => {
      this.#database.prepare('DELETE FROM client_update WHERE device_id = ?').run(deviceId);
      tell();
    });
  }

  /** Value of a leaf that was set; empty for any other. */
  setting(deviceId: string, leaf: string): string {
    const row = this.#database
      .prepare('SELECT value FROM client_setting WHERE device_id = ? AND leaf = ?')
      .get(deviceId, leaf);
    return String(row?.value ?? '');
  }

  /** Sets a leaf. Beyond 16,384 leaves, the one that was set longest ago is forgotten. */
  set(deviceId: string, leaf: string, value: string): void {
    transaction(this.#database, () => {
      this.#database
        .prepare('INSERT OR REPLACE INTO client_setting (device_id, leaf, value) VALUES (?, ?, ?)')
        .run(deviceId, leaf, value);
      keepLatest(this.#database, 'client_setting', settingsLimit);
    });
  }

  /** Resolves when what was stored survives a power cut. @throws {PosternError} `storage` */
  async settled(): Promise<void> {
    await this.#database.settled();
  }
}

const updateBody = v.looseObject({
  operation: v.picklist(updateOperations),
  url: v.exactOptional(v.string()),
  correlator: v.exactOptional(v.string()),
  stage: v.picklist(stages),
});

const updateTable: ReadableTable<ClientUpdate> = {
  table: 'client_update',
  key: ['device_id'],
  read: (row) => ({ ...row.json('body', updateBody), deviceId: row.text('device_id') }),
};
