import type { DatabaseSync } from 'node:sqlite';
import { transaction } from '../../base/database.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import { ImageState } from '../../mo/gw-image-inventory.ts';

/** Record of an image in the gateway's image cache. */
export interface ImageRecord {
  /** Name of the image's node in the Image Inventory. */
  readonly name: string;
  /** A value of `ImageState` (mo/gw-image-inventory.ts). */
  readonly state: number;
  /** Size of the whole image in bytes; absent while it is unknown. */
  readonly size?: number;
  /** SHA-256 of the stored image in hexadecimal. */
  readonly hash?: string;
  /** Validator of this version at the download server: its strong ETag, or its Last-Modified date. */
  readonly validator?: string;
  /** The DM server pushed the image, so it cannot be downloaded again. */
  readonly inline: boolean;
  /** Wall time in milliseconds of the last use: when a device began to load the image, else when the record was made. */
  readonly used: number;
  /** ServerID of the DM server that ordered the operation under way. */
  readonly server?: string;
  /** Correlator of that operation. */
  readonly correlator?: string;
  /** FUMO result code of the last operation (OMA FUMO 1.0, section 8.2). */
  readonly result?: number;
}

/** Durable records of the image cache, all kept in memory too. The bytes are in `ImageFiles`. */
export class Images {
  readonly #database: DatabaseSync;
  readonly #known = new Map<string, ImageRecord>();

  constructor(database: DatabaseSync) {
    this.#database = database;
    for (const record of readRows(database, imageTable)) this.#known.set(record.name, record);
  }

  get(name: string): ImageRecord | undefined {
    return this.#known.get(name);
  }

  values(): ImageRecord[] {
    return [...this.#known.values()];
  }

  put(record: ImageRecord): void {
    const { name, state, size, hash, validator, inline, used, server, correlator, result } = record;
    this.#database
      .prepare(
        `INSERT OR REPLACE INTO image (name, state, size, hash, validator, inline, used, server, correlator, result)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        name,
        state,
        size ?? null,
        hash ?? null,
        validator ?? null,
        inline ? 1 : 0,
        Math.round(used),
        server ?? null,
        correlator ?? null,
        result ?? null,
      );
    this.#known.set(name, record);
  }

  /** Runs `work` in one transaction: either all its changes are stored, or none. */
  inTransaction(work: () => void): void {
    transaction(this.#database, work);
  }

  delete(name: string): void {
    this.#database.prepare('DELETE FROM image WHERE name = ?').run(name);
    this.#known.delete(name);
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
