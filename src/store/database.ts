import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { PosternError } from '../base/errors.ts';

/** One step per version of the schema; a step that was released is never changed. */
const steps = [
  `CREATE TABLE node (path TEXT PRIMARY KEY, format TEXT NOT NULL, type TEXT, value BLOB, octets INTEGER NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE acl (uri TEXT PRIMARY KEY, acl TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE credential (
     device_id TEXT PRIMARY KEY, client_name TEXT NOT NULL, client_secret TEXT NOT NULL, client_nonce BLOB NOT NULL,
     server_secret TEXT NOT NULL, server_nonce BLOB NOT NULL, origin TEXT NOT NULL, attached INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE device (
     device_id TEXT PRIMARY KEY, state TEXT NOT NULL, mode INTEGER NOT NULL, origin TEXT NOT NULL,
     address TEXT NOT NULL, last_seen INTEGER NOT NULL, manufacturer TEXT, model TEXT, firmware TEXT
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE outbox (sequence INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, device_id TEXT NOT NULL, body TEXT NOT NULL) STRICT;
   CREATE TABLE party (
     id TEXT PRIMARY KEY, client_nonce BLOB NOT NULL, server_nonce BLOB NOT NULL, gateway TEXT, alert_sequence INTEGER NOT NULL
   ) STRICT, WITHOUT ROWID;`,
  `ALTER TABLE node ADD COLUMN title TEXT;
   ALTER TABLE node ADD COLUMN time_stamp TEXT;
   ALTER TABLE node ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
   CREATE TABLE fanout (name TEXT PRIMARY KEY, state INTEGER NOT NULL, correlator TEXT) STRICT, WITHOUT ROWID;
   CREATE TABLE fanout_target (
     name TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, outcome TEXT, PRIMARY KEY (name, device)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE pending_detach (gateway TEXT NOT NULL, device TEXT NOT NULL, PRIMARY KEY (gateway, device)) STRICT, WITHOUT ROWID;
   CREATE TABLE applied_bootstrap (number INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE) STRICT;`,
  `DROP TABLE fanout;
   DROP TABLE fanout_target;
   CREATE TABLE campaign (
     kind TEXT NOT NULL, name TEXT NOT NULL, state INTEGER NOT NULL, server TEXT NOT NULL, correlator TEXT,
     PRIMARY KEY (kind, name)
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE campaign_target (
     kind TEXT NOT NULL, name TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, status INTEGER, outcome TEXT,
     PRIMARY KEY (kind, name, device)
   ) STRICT, WITHOUT ROWID;
   ALTER TABLE outbox ADD COLUMN server TEXT;
   CREATE INDEX outbox_subject ON outbox (kind, device_id);
   ALTER TABLE device ADD COLUMN protocol TEXT NOT NULL DEFAULT 'OMA-DM';
   ALTER TABLE device ADD COLUMN component_type INTEGER NOT NULL DEFAULT 0;
   ALTER TABLE device ADD COLUMN via TEXT;
   ALTER TABLE device ADD COLUMN device_type TEXT;
   CREATE TABLE image (
     name TEXT PRIMARY KEY, state INTEGER NOT NULL, size INTEGER, hash TEXT, validator TEXT, inline INTEGER NOT NULL,
     used INTEGER NOT NULL, server TEXT, correlator TEXT, result INTEGER
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE received_alert (
     number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind TEXT NOT NULL, gateway TEXT NOT NULL, device TEXT,
     body TEXT NOT NULL
   ) STRICT;
   CREATE TABLE operation_result (
     number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind TEXT NOT NULL, gateway TEXT NOT NULL,
     name TEXT NOT NULL, correlator TEXT, result TEXT NOT NULL, UNIQUE (kind, gateway, name)
   ) STRICT;
   CREATE TABLE assignment (device TEXT PRIMARY KEY, gateway TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
  `ALTER TABLE device ADD COLUMN objects TEXT;
   CREATE TABLE registration (device_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
  `CREATE TABLE gateway_update (number INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;`,
];

/**
 * Has a database prepare each text of SQL once: what was prepared is memory that the garbage collector does not see, and the
 * program has a fixed number of texts. Not a class of its own: that would load SQLite before a database is opened.
 */
function preparingOnce(database: DatabaseSync): DatabaseSync {
  const statements = new Map<string, StatementSync>();
  const prepare = database.prepare.bind(database);
  database.prepare = (sql) => {
    let statement = statements.get(sql);
    if (!statement) {
      statement = prepare(sql);
      statements.set(sql, statement);
    }
    return statement;
  };
  return database;
}

/**
 * Opens the one file that holds all durable state, and brings its schema up to date. What a transaction committed
 * survives a power cut (WAL, synchronous FULL). `:memory:` keeps it for as long as the process lives.
 * @throws {PosternError} `configuration` when the file cannot be used, or is of a later version
 */
export function openDatabase(file: string): DatabaseSync {
  try {
    if (file !== ':memory:') mkdirSync(dirname(file), { recursive: true });
    if (file !== ':memory:') goBack(file);
    const database = preparingOnce(new DatabaseSync(file));
    // It holds secrets.
    if (file !== ':memory:') chmodSync(file, 0o600);
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
    migrate(database, file);
    return database;
  } catch (cause) {
    if (cause instanceof PosternError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('configuration', `the state file ${file} cannot be used: ${why}`, { cause });
  }
}

const versionOf = (database: DatabaseSync): number =>
  Number(database.prepare('PRAGMA user_version').get()?.user_version);

const copyOf = (file: string, version: number): string => `${file}.version-${version}`;

/**
 * Migrations go forward only. Where an earlier program finds state of a later one, the way back after an update, it takes the
 * copy that was made before the migration.
 */
function goBack(file: string): void {
  if (!existsSync(file)) return;
  const copies = steps.map((_, at) => copyOf(file, steps.length - at)).filter((copy) => existsSync(copy));
  const [latest] = copies;
  if (latest === undefined) return;
  const later = new DatabaseSync(file);
  const version = versionOf(later);
  later.close();
  if (version <= steps.length) return;
  for (const rest of ['-wal', '-shm']) rmSync(file + rest, { force: true });
  renameSync(latest, file);
}

/** The slot that runs has proved itself: copies from before its migrations are not needed any more. */
export function dropCopies(file: string): void {
  if (file === ':memory:') return;
  for (const at of steps.keys()) rmSync(copyOf(file, at + 1), { force: true });
}

function migrate(database: DatabaseSync, file: string): void {
  const version = versionOf(database);
  if (version > steps.length)
    throw new PosternError(
      'configuration',
      `the state is of version ${version}; this program knows ${steps.length}`,
    );
  if (version > 0 && version < steps.length && file !== ':memory:') {
    const copy = copyOf(file, version);
    rmSync(`${copy}.part`, { force: true });
    database.prepare('VACUUM INTO ?').run(`${copy}.part`);
    chmodSync(`${copy}.part`, 0o600);
    renameSync(`${copy}.part`, copy);
  }
  for (const [at, step] of steps.entries())
    if (at >= version) transaction(database, () => database.exec(`${step} PRAGMA user_version = ${at + 1}`));
}

/** All of it, or nothing. */
export function transaction<T>(database: DatabaseSync, work: () => T): T {
  if (database.isTransaction) return work();
  database.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    database.exec('COMMIT');
    return result;
  } catch (error) {
    database.exec('ROLLBACK');
    throw error;
  }
}

/** Tables that keep what came last, by a number that rises. */
type NumberedTable = 'applied_bootstrap' | 'operation_result' | 'outbox' | 'received_alert';

/** Lets the oldest rows of a table go that are beyond a number of rows, and answers with how many went. */
export function keepLatest(database: DatabaseSync, table: NumberedTable, limit: number): number {
  // Numbers have gaps, so this is never less than what is there; to count would be to read all of it each time.
  const span = database
    .prepare(`SELECT (SELECT max(rowid) FROM ${table}) - (SELECT min(rowid) FROM ${table}) + 1 AS n`)
    .get();
  if (Number(span?.n) <= limit) return 0;
  const { changes } = database
    .prepare(
      `DELETE FROM ${table} WHERE rowid IN (SELECT rowid FROM ${table} ORDER BY rowid DESC LIMIT -1 OFFSET ?)`,
    )
    .run(limit);
  return Number(changes);
}
