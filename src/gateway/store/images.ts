import { type Database, transaction } from '../../base/database.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import { ImageState } from '../../mo/gw-image-inventory.ts';

/**
 * Record of an image in the gateway's image cache. An image that is stored is served while a download that is to replace it
 * is under way, and after one that failed.
 */
export interface ImageRecord {
  /** Name of the image's node in the Image Inventory. */
  readonly name: string;
  /** A value of `ImageState` (mo/gw-image-inventory.ts). */
  readonly state: number;
  /** Size of the stored image in bytes; of an evicted one, the size that it had. */
  readonly size?: number;
  /** SHA-256 of the stored image in hexadecimal; absent when none is stored. */
  readonly hash?: string;
  /** The DM server pushed the stored image, so it cannot be downloaded again. */
  readonly inline: boolean;
  /** Wall time in milliseconds of the last use: when a device began to load the image, else when the record was made. */
  readonly used: number;
  /** Validator of the version under way at the download server: its strong ETag, or its Last-Modified date. */
  readonly validator?: string;
  /** Size of the version under way in bytes; absent while it is unknown. */
  readonly total?: number;
  /** ServerID of the DM server that ordered the operation under way. */
  readonly server?: string;
  /** Correlator of that operation. */
  readonly correlator?: string;
  /** FUMO result code of the last operation (OMA FUMO 1.0, section 8.2). */
  readonly result?: number;
  /** Why the last operation failed. */
  readonly reason?: string;
}

/** States in which an image can be stored. */
const mayBeStored: ReadonlySet<number> = new Set([ImageState.Coming, ImageState.Ready]);
/** Milliseconds between two durable updates of the time of use. More would wear out flash memory. */
const touchEvery = 3_600_000;

/** Optional fields, which are columns of the same name in the table `image`. */
const columns = ['size', 'hash', 'validator', 'server', 'correlator', 'result'] as const;

/** Durable records of the image cache, all kept in memory too. The bytes are in `ImageFiles`. */
export class Images {
  readonly #database: Database;
  readonly #known = new Map<string, ImageRecord>();
  /** Times of use that are newer than the stored ones. Bounded by the number of images. */
  readonly #used = new Map<string, number>();

  constructor(database: Database) {
    this.#database = database;
    const operations = new Map(readRows(database, operationTable));
    for (const found of readRows(database, imageTable)) {
      const record = { ...found, ...operations.get(found.name) };
      // Version 0.1.0 kept the hash of an evicted image.
      const { hash: _, ...withoutHash } = record;
      this.#known.set(record.name, mayBeStored.has(record.state) ? record : withoutHash);
    }
  }

  get(name: string): ImageRecord | undefined {
    const record = this.#known.get(name);
    return record && { ...record, used: this.#used.get(name) ?? record.used };
  }

  values(): ImageRecord[] {
    return [...this.#known.keys()].map((name) => this.get(name)!);
  }

  put(record: ImageRecord): void {
    const { name, state, inline, used, total = null, reason = null } = record;
    this.inTransaction(() => {
      this.#onRollback(name);
      this.#database
        .prepare(
          `INSERT OR REPLACE INTO image (name, state, inline, used, ${columns.join(', ')})
           VALUES (?, ?, ?, ?${', ?'.repeat(columns.length)})`,
        )
        .run(
          name,
          state,
          inline ? 1 : 0,
          Math.round(used),
          ...columns.map((column) => record[column] ?? null),
        );
      this.#database
        .prepare('INSERT OR REPLACE INTO image_operation (name, total, reason) VALUES (?, ?, ?)')
        .run(name, total, reason);
      this.#known.set(name, record);
      this.#used.delete(name);
    });
  }

  /** Notes that a device began to load an image. A time that cannot be stored is kept in memory. */
  touch(name: string, used: number): void {
    const record = this.#known.get(name);
    if (!record) return;
    this.#used.set(name, used);
    // The clock may have been set back.
    if (Math.abs(used - record.used) < touchEvery) return;
    try {
      this.put({ ...record, used });
    } catch {
      // The database tells of a disk that takes no writes. The image is served all the same.
    }
  }

  /** Runs `work` in one transaction: either all its changes are stored, or none. */
  inTransaction(work: () => void): void {
    transaction(this.#database, work);
  }

  /** Runs `follow` when the transaction under way is committed: at once outside of one. */
  afterCommit(follow: () => void): void {
    this.#database.afterCommit(follow);
  }

  /** Resolves when what was put is durable. */
  async settled(): Promise<void> {
    await this.#database.settled();
  }

  delete(name: string): void {
    this.inTransaction(() => {
      this.#onRollback(name);
      for (const table of ['image', 'image_operation'])
        this.#database.prepare(`DELETE FROM ${table} WHERE name = ?`).run(name);
      this.#known.delete(name);
      this.#used.delete(name);
    });
  }

  #onRollback(name: string): void {
    const before = this.#known.get(name);
    const used = this.#used.get(name);
    this.#database.onRollback(() => {
      if (before) this.#known.set(name, before);
      else this.#known.delete(name);
      if (used !== undefined) this.#used.set(name, used);
    });
  }
}

const imageTable: ReadableTable<ImageRecord> = {
  table: 'image',
  key: ['name'],
  read: (row) => ({
    name: row.text('name'),
    state: row.oneOf('state', Object.values(ImageState)),
    inline: row.oneOf('inline', [0, 1]) === 1,
    used: row.time('used'),
    ...row.optionalInteger('size'),
    ...row.optionalText('hash'),
    ...row.optionalText('validator'),
    ...row.optionalText('server'),
    ...row.optionalText('correlator'),
    ...row.optionalInteger('result'),
  }),
};

/** What the released table of images has no columns for. */
const operationTable: ReadableTable<readonly [string, Pick<ImageRecord, 'total' | 'reason'>]> = {
  table: 'image_operation',
  key: ['name'],
  read: (row) => [row.text('name'), { ...row.optionalInteger('total'), ...row.optionalText('reason') }],
};
