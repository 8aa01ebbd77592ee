import * as v from 'valibot';
import { type Database, transaction } from '../../base/database.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';

/** An update of the gateway itself that has not ended yet. The record survives the restart into the new slot. */
export interface UpdateRecord {
  readonly operation: 'Download' | 'Update' | 'DownloadAndUpdate';
  readonly url: string;
  /** ServerID of the DM server that ordered the update; absent when it was started at the gateway itself. */
  readonly server?: string;
  readonly correlator?: string;
  /** `trying`: the slot is written, and the gateway restarts or has restarted into it. */
  readonly phase: 'downloading' | 'installing' | 'trying';
  /** Validator (ETag or Last-Modified) of the version that is partly downloaded. */
  readonly validator?: string | undefined;
  /** Size of that version in bytes, if it is known. */
  readonly total?: number | undefined;
  /** Whether the package is complete. It may wait for its maintenance window. */
  readonly isDownloaded?: boolean;
  /** Slot that was written. This field and those below are set in the phase `trying`. */
  readonly slot?: 'A' | 'B';
  /** Version in that slot. */
  readonly version?: string;
  /** Whether the uplink was connected before the restart. */
  readonly wasConnected?: boolean;
  /** Whether devices were served at any address before the restart. */
  readonly wasServed?: boolean;
  /** Names of the inventory's records before the restart. (Version 0.1.0 had one digest of all in `devices`.) */
  readonly attached?: readonly string[];
}

/** Durable store of the update under way. There is at most one. */
export class UpdateRecords {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get(): UpdateRecord | undefined {
    return readRows(this.#database, updateTable)[0];
  }

  put(record: UpdateRecord): void {
    this.#database
      .prepare('INSERT OR REPLACE INTO gateway_update (number, body) VALUES (1, ?)')
      .run(JSON.stringify(record));
  }

  /** Notes that a device has left, so that the new version need not have it. Joins the caller's transaction. */
  deviceLeft(name: string): void {
    const record = this.get();
    if (record?.attached?.includes(name))
      this.put({ ...record, attached: record.attached.filter((each) => each !== name) });
  }

  /** Deletes the record and runs `tell`, which reports the result, in the same transaction. */
  end(tell: () => void): void {
    transaction(this.#database, () => {
      tell();
      this.#database.prepare('DELETE FROM gateway_update').run();
    });
  }

  /** Resolves when what was put is durable: the restart into the new slot may cut the power. */
  async settled(): Promise<void> {
    await this.#database.settled();
  }
}

const text = v.exactOptional(v.string());
const updateBody = v.looseObject({
  operation: v.picklist(['Download', 'Update', 'DownloadAndUpdate']),
  url: v.string(),
  server: text,
  correlator: text,
  phase: v.picklist(['downloading', 'installing', 'trying']),
  validator: text,
  total: v.exactOptional(v.pipe(v.number(), v.integer(), v.minValue(0))),
  isDownloaded: v.exactOptional(v.boolean()),
  slot: v.exactOptional(v.picklist(['A', 'B'])),
  version: text,
  wasConnected: v.exactOptional(v.boolean()),
  wasServed: v.exactOptional(v.boolean()),
  attached: v.exactOptional(v.array(v.string())),
});

const updateTable: ReadableTable<UpdateRecord> = {
  table: 'gateway_update',
  key: ['number'],
  read: (row) => row.json('body', updateBody),
};
