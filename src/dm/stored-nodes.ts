import { type Database, transaction, withoutTraces } from '../base/database.ts';
import { asPosternError } from '../base/errors.ts';
import { type ReadableTable, type Row, readRows } from '../base/rows.ts';
import type { Sealer } from '../base/sealing.ts';
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

/** What the column `octets` says of a value. */
const Kind = { text: 0, octets: 1, sealedText: 2, sealedOctets: 3 } as const;

/** The nodes of a management tree, in a database. */
export class Nodes implements NodeStore {
  readonly #database: Database;
  readonly #sealing: Sealer | undefined;
  readonly #table: ReadableTable<StoredNode | undefined>;
  #lost = 0;

  /** @param sealing for the values of secret nodes; without it they are stored in clear */
  constructor(database: Database, sealing?: Sealer) {
    this.#database = database;
    this.#sealing = sealing;
    this.#table = { ...nodeTable, read: (row) => this.#opened(readNode(row)) };
  }

  /** Nodes whose values another key has sealed. They are left out, and stay in the file. */
  get lost(): number {
    return this.#lost;
  }

  load(branch: string): StoredNode[] {
    const where = 'WHERE path = ? OR substr(path, 1, ?) = ?';
    const found = readRows(this.#database, this.#table, where, branch, branch.length + 1, `${branch}/`);
    return found.flatMap((node) => node ?? []);
  }

  seal(nodes: readonly StoredNode[]): void {
    if (!this.#sealing) return;
    try {
      withoutTraces(this.#database, () => {
        for (const node of nodes) this.#put(node);
      });
    } catch (thrown) {
      // On a full disk that waits for the next start.
      if (asPosternError(thrown).code !== 'storage') throw thrown;
    }
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
        for (const node of put) this.#put(node);
      },
      undo,
    );
  }

  #put(node: StoredNode): void {
    const { path, format, type = null, value, title = null, timeStamp = null, version = 0, secret } = node;
    const isOctets = value instanceof Uint8Array;
    const plain = value === undefined ? null : Buffer.from(value as string);
    const sealed = secret && plain ? this.#sealing?.seal(plain, sealName(path)) : undefined;
    const kinds = sealed
      ? ([Kind.sealedText, Kind.sealedOctets] as const)
      : ([Kind.text, Kind.octets] as const);
    this.#database
      .prepare(
        'INSERT OR REPLACE INTO node (path, format, type, value, octets, title, time_stamp, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
      )
      .run(path, format, type, sealed ?? plain, kinds[isOctets ? 1 : 0], title, timeStamp, version);
  }

  /** A node as it is used. Undefined when its value cannot be opened. */
  #opened({ kind, ...node }: NodeRow): StoredNode | undefined {
    const { path, format, value } = node;
    const isSealed = kind === Kind.sealedText || kind === Kind.sealedOctets;
    const plain = isSealed && value ? this.#sealing?.open(value, sealName(path)) : value;
    if (isSealed && !plain) {
      this.#lost++;
      return undefined;
    }
    const isOctets = kind === Kind.octets || kind === Kind.sealedOctets;
    const usable = plain && (isOctets ? plain : Buffer.from(plain).toString());
    if (!fits(format, usable)) throw new Error(`value does not fit the format ${format}`);
    const { value: _, ...rest } = node;
    return { ...rest, ...(usable !== undefined && { value: usable }), ...(isSealed && { secret: true }) };
  }
}

const sealName = (path: string): string => `node ${path}`;

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

type NodeRow = Omit<StoredNode, 'value' | 'secret'> & {
  readonly value: Uint8Array | undefined;
  readonly kind: (typeof Kind)[keyof typeof Kind];
};

const nodeTable = { table: 'node', key: ['path'] } as const;

const readNode = (row: Row): NodeRow => ({
  path: row.text('path'),
  format: row.oneOf('format', nodeFormats),
  value: row.optionalOctets('value'),
  kind: row.oneOf('octets', Object.values(Kind)),
  ...row.optionalText('type'),
  ...row.optionalText('title'),
  ...row.optionalText('timeStamp', 'time_stamp'),
  version: row.integer('version'),
});

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
