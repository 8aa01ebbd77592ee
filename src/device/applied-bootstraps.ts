import { createHash } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { keepLatest } from '../base/database.ts';

/** Bootstraps that are remembered; the oldest is forgotten first. */
const limit = 256;

/** Bootstraps that a device has applied: the same one a second time is a replay. Durable. */
export class AppliedBootstraps {
  readonly #database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  has(document: Uint8Array): boolean {
    return (
      this.#database.prepare('SELECT 1 FROM applied_bootstrap WHERE digest = ?').get(digestOf(document)) !==
      undefined
    );
  }

  add(document: Uint8Array): void {
    this.#database.prepare('INSERT INTO applied_bootstrap (digest) VALUES (?)').run(digestOf(document));
    keepLatest(this.#database, 'applied_bootstrap', limit);
  }
}

const digestOf = (document: Uint8Array): string => createHash('sha256').update(document).digest('hex');
