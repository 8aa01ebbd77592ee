import type { DatabaseSync } from 'node:sqlite';
import { transaction } from '../base/database.ts';
import type { AclStore, LoadedNode, NodeChanges, NodeStore } from './node-store.ts';

/** SQL for the tables of `Nodes` and `Acls`: steps 1 and 2 of the schema of each party that has a management tree. */
export const nodeTables = [
  `CREATE TABLE node (path TEXT PRIMARY KEY, format TEXT NOT NULL, type TEXT, value BLOB, octets INTEGER NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE acl (uri TEXT PRIMARY KEY, acl TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
  `ALTER TABLE node ADD COLUMN title TEXT;
   ALTER TABLE node ADD COLUMN time_stamp TEXT;
   ALTER TABLE node ADD COLUMN version INTEGER NOT NULL DEFAULT 0;`,
] as const;

/** The nodes of a management tree, in a database. */
export class Nodes implements NodeStore {
  readonly #database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  *load(branch: string): Generator<LoadedNode> {
    const rows = this.#database
      .prepare('SELECT * FROM node WHERE path = ? OR substr(path, 1, ?) = ?')
      .all(branch, branch.length + 1, `${branch}/`);
    for (const { path, format, type, value, octets, title, time_stamp: timeStamp, version } of rows) {
      const bytes = value as Uint8Array | null;
      yield {
        path: String(path),
        format: String(format),
        ...(type !== null && { type: String(type) }),
        ...(bytes && { value: octets ? bytes : Buffer.from(bytes).toString() }),
        ...(title !== null && { title: String(title) }),
        ...(timeStamp !== null && { timeStamp: String(timeStamp) }),
        version: Number(version),
      };
    }
  }

  apply({ put = [], remove = [] }: NodeChanges): void {
    const database = this.#database;
    transaction(database, () => {
      const drop = database.prepare('DELETE FROM node WHERE path = ?');
      for (const path of remove) drop.run(path);
      const keep = database.prepare(
        'INSERT OR REPLACE INTO node (path, format, type, value, octets, title, time_stamp, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      );
      for (const { path, format, type = null, value, title = null, timeStamp = null, version = 0 } of put)
        keep.run(
          path,
          format,
          type,
          value === undefined ? null : Buffer.from(value as string),
          value instanceof Uint8Array ? 1 : 0,
          title,
          timeStamp,
          version,
        );
    });
  }
}

/** The ACLs of a management tree, in a database. */
export class Acls implements AclStore {
  readonly #database: DatabaseSync;
  readonly #known = new Map<string, string>();

  /** @param initial ACLs by URI, for the nodes that have none in the database */
  constructor(database: DatabaseSync, initial: Readonly<Record<string, string>>) {
    this.#database = database;
    for (const [uri, acl] of Object.entries(initial)) this.#known.set(uri, acl);
    for (const { uri, acl } of database.prepare('SELECT * FROM acl').all())
      this.#known.set(String(uri), String(acl));
  }

  get(uri: string): string | undefined {
    return this.#known.get(uri);
  }

  uris(): Iterable<string> {
    return this.#known.keys();
  }

  set(uri: string, acl: string | undefined): void {
    if (acl === undefined) {
      this.#database.prepare('DELETE FROM acl WHERE uri = ?').run(uri);
      this.#known.delete(uri);
    } else {
      this.#database.prepare('INSERT OR REPLACE INTO acl (uri, acl) VALUES (?, ?)').run(uri, acl);
      this.#known.set(uri, acl);
    }
  }
}
