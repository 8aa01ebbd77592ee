import { hash } from 'node:crypto';
import { type Database, keepLatest } from '../base/database.ts';
import { keepNumbersLow } from '../base/rows.ts';

/** Most bootstraps that are remembered. Beyond it the oldest is forgotten. */
const limit = 256;

/** Durable record of the bootstraps that a device has applied, by which replays are recognized. */
export class AppliedBootstraps {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
    keepNumbersLow(database, 'applied_bootstrap', 'number');
  }

  /** Whether exactly this document was applied before. */
  has(document: Uint8Array): boolean {
    return (
      this.#database.prepare('SELECT 1 FROM applied_bootstrap WHERE digest = ?').get(digestOf(document)) !==
      undefined
    );
  }

  /** Records a document as applied. */
  add(document: Uint8Array): void {
    this.#database.prepare('INSERT INTO applied_bootstrap (digest) VALUES (?)').run(digestOf(document));
    keepLatest(this.#database, 'applied_bootstrap', limit);
  }
}

const digestOf = (document: Uint8Array): string => hash('sha256', document);
