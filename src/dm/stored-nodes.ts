import { type Database, transaction } from '../base/database.ts';
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
  readonly #database: Database;

  constructor(database: Database) {
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

  apply({ put = [], remove = [] }: NodeChanges, undo: () => void): void {
    const database = this.#database;
    transaction(
      database,
      () => {
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
      },
      undo,
    );
  }
}

/** The ACLs of a management tree, in a database. */
export class Acls implements AclStore {
  readonly #database: Database;
  readonly #initial: Readonly<Record<string, string>>;

  /** @param initial ACLs by URI, for the nodes that have none in the database */
  constructor(database: Database, initial: Readonly<Record<string, string>>) {
    this.#database = database;
    this.#initial = initial;
  }

  *load(): Generator<readonly [string, string]> {
    yield* Object.entries(this.#initial);
    for (const { uri, acl } of this.#database.prepare('SELECT * FROM acl').all())
      yield [String(uri), String(acl)];
  }

  apply(changes: ReadonlyMap<string, string | undefined>, undo: () => void): void {
    const database = this.#database;
    transaction(
      database,
      () => {
        for (const [uri, acl] of changes)
          if (acl === undefined) database.prepare('DELETE FROM acl WHERE uri = ?').run(uri);
          else database.prepare('INSERT OR REPLACE INTO acl (uri, acl) VALUES (?, ?)').run(uri, acl);
      },
      undo,
    );
  }
}
