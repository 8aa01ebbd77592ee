import type { DatabaseSync } from 'node:sqlite';
import { transaction } from '../../base/database.ts';

/** What is known of an image that the gateway keeps for its devices. */
export interface ImageRecord {
  readonly name: string;
  readonly state: number;
  /** Bytes of all of it, as far as they are known. */
  readonly size?: number;
  /** SHA-256 of what is kept, in hexadecimal. */
  readonly hash?: string;
  /** What the download server calls this version: its ETag, or when it was changed. */
  readonly validator?: string;
  /** The server pushed it, so it can be had from nowhere else. */
  readonly inline: boolean;
  /** Wall time in milliseconds of when it was asked for last. */
  readonly used: number;
  /** The operation under way: who asked for it, and by which correlator. */
  readonly server?: string;
  readonly correlator?: string;
  /** FUMO result code of why it is not there. */
  readonly result?: number;
}

/** Records of the image cache, durable; the bytes are in files. */
export class Images {
  readonly #database: DatabaseSync;
  readonly #known = new Map<string, ImageRecord>();

  constructor(database: DatabaseSync) {
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

  /** Writes all changes of `work`, or none when it throws. */
  inTransaction(work: () => void): void {
    transaction(this.#database, work);
  }

  delete(name: string): void {
    this.#database.prepare('DELETE FROM image WHERE name = ?').run(name);
    this.#known.delete(name);
  }
}
