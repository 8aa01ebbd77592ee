import { type Database, transaction } from '../base/database.ts';
import { type ReadableTable, readRows } from '../base/rows.ts';
import { type NodeFormat, nodeFormats } from '../wire/syncml/tnds.ts';
import { parseAcl } from './acl.ts';
import type { AclStore, NodeChanges, NodeStore, StoredNode } from './node-store.ts';

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

  load(branch: string): StoredNode[] {
    const where = 'WHERE path = ? OR substr(path, 1, ?) = ?';
    return readRows(this.#database, nodeTable, where, branch, branch.length + 1, `${branch}/`);
  }

  setAside(path: string, reason: string): void {
    const read = () => {
      throw new Error(reason);
    };
    readRows(this.#database, { ...nodeTable, read }, 'WHERE path = ?', path);
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
    for (const { uri, acl } of readRows(this.#database, aclTable)) yield [uri, acl];
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

const nodeTable: ReadableTable<StoredNode> = {
  table: 'node',
  key: ['path'],
  read: (row) => {
    const format = row.oneOf('format', nodeFormats);
    const octets = row.optionalOctets('value');
    const value = octets && (row.oneOf('octets', [0, 1]) === 1 ? octets : Buffer.from(octets).toString());
    if (!fits(format, value)) throw new Error(`value does not fit the format ${format}`);
    return {
      path: row.text('path'),
      format,
      ...row.optionalText('type'),
      ...(value !== undefined && { value }),
      ...row.optionalText('title'),
      ...row.optionalText('timeStamp', 'time_stamp'),
      version: row.integer('version'),
    };
  },
};

/** Whether a node of this format can have this value. A value that is not there yet is an empty text. */
function fits(format: NodeFormat, value: string | Uint8Array | undefined): boolean {
  if (format === 'node' || value === undefined || value === '')
    return value === undefined || format !== 'node';
  if (format === 'int') return /^[+-]?\d{1,10}$/.test(String(value));
  return format !== 'bool' || value === 'true' || value === 'false';
}

const aclTable: ReadableTable<{ readonly uri: string; readonly acl: string }> = {
  table: 'acl',
  key: ['uri'],
  read: (row) => {
    const acl = row.text('acl');
    parseAcl(acl);
    return { uri: row.text('uri'), acl };
  },
  // Without an entry the node would inherit rights that its ACL may have kept from a server. An empty ACL gives none.
  instead: (row, database) => {
    const uri = row.text('uri');
    if (uri === '.') throw new Error('the root has an ACL of its own');
    database.prepare('INSERT INTO acl (uri, acl) VALUES (?, ?)').run(uri, '');
    return { uri, acl: '' };
  },
};
