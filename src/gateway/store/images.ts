import { type Database, transaction } from '../../base/database.ts';

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
  readonly #database: Database;
  readonly #known = new Map<string, ImageRecord>();

  constructor(database: Database) {
    this.#database = database;
    for (const row of database.prepare('SELECT * FROM image').iterate()) {
      const optional = (name: string, as: (value: unknown) => unknown, column = name) =>
        row[column] === null ? {} : { [name]: as(row[column]) };
      this.#known.set(String(row.name), {
        name: String(row.name),
        state: Number(row.state),
        inline: row.inline === 1,
        used: Number(row.used),
        ...optional('size', Number),
        ...optional('hash', String),
        ...optional('validator', String),
        ...optional('server', String),
        ...optional('correlator', String),
        ...optional('result', Number),
      });
    }
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
