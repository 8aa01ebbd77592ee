import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { syncFile, syncFolder } from './durable.ts';
import { asPosternError, PosternError } from './errors.ts';

/** The tables of one party, as the steps that build them. */
export interface Schema {
  /** Name of the party in error messages, such as `gateway`. */
  readonly party: string;
  /** Marks a file as the state of this party (PRAGMA application_id). */
  readonly applicationId: number;
  /** SQL, one step for each version of the schema. A released step never changes. */
  readonly steps: readonly string[];
}

/**
 * Makes `prepare` return the same statement for the same SQL. The garbage collector does not see the memory of a
 * statement, and the program has a fixed number of SQL texts. This is not a subclass, because a subclass would load
 * SQLite before a database is opened.
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
 * Opens the file that holds all durable state of a party, and brings its tables up to date. A committed transaction
 * survives a power cut (WAL, synchronous FULL). The state of `:memory:` lives as long as the process.
 * @throws {PosternError} `configuration` when the file cannot be used, is of a later version, or belongs to another
 * party
 */
export function openDatabase(file: string, schema: Schema): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    if (file !== ':memory:') {
      mkdirSync(dirname(file), { recursive: true });
      goBack(file, schema);
    }
    database = preparingOnce(new DatabaseSync(file));
    // Nothing is written before this check: the file may belong to somebody else.
    checkParty(database, schema);
    // The file holds secrets.
    if (file !== ':memory:') chmodSync(file, 0o600);
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
    migrate(database, file, schema);
    return database;
  } catch (cause) {
    database?.close();
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('configuration', `the state file ${file} cannot be used: ${why}`, { cause });
  }
}

const pragma = (database: DatabaseSync, name: 'application_id' | 'user_version'): number =>
  Number(database.prepare(`PRAGMA ${name}`).get()?.[name]);

/**
 * Refuses the file of another party or program. Files of version 0.1.0 have no mark; they hold the tables of all parties
 * and are accepted.
 */
function checkParty(database: DatabaseSync, { party, applicationId }: Schema): void {
  const found = pragma(database, 'application_id');
  if (found === applicationId) return;
  const isReleased = found === 0 && pragma(database, 'user_version') > 0;
  const isEmpty = found === 0 && !database.prepare('SELECT 1 FROM sqlite_schema').get();
  if (!isReleased && !isEmpty) throw new Error(`it is not the state of a ${party} but of another program`);
}

/** The copy of the state file from before its migration from this version. */
const copyOf = (file: string, version: number): string => `${file}.version-${version}`;

/**
 * Restores the copy that was made before a migration, when the file has been migrated by a later program. This is the
 * case after an update was rolled back: migrations go forward only, so the earlier program cannot use the migrated
 * file.
 */
function goBack(file: string, schema: Schema): void {
  const known = schema.steps.length;
  const copies = schema.steps.map((_, at) => copyOf(file, known - at)).filter((copy) => existsSync(copy));
  const [latest] = copies;
  if (latest === undefined || !existsSync(file)) return;
  {
    using later = new DatabaseSync(file);
    checkParty(later, schema);
    if (pragma(later, 'user_version') <= known) return;
    // Removes the WAL of the later file. SQLite would apply that WAL to the copy.
    later.exec('PRAGMA journal_mode = DELETE');
  }
  renameSync(latest, file);
  syncFolder(dirname(file));
}

/**
 * Deletes the copies that were made before migrations. Called when the running slot has proved itself, so that no
 * earlier program will need them.
 */
export function dropCopies(file: string, { steps }: Schema): void {
  if (file === ':memory:') return;
  for (const at of steps.keys())
    for (const end of ['', partial]) rmSync(copyOf(file, at + 1) + end, { force: true });
}

/** Ends the name of a copy that is not complete. */
const partial = '.part';

/**
 * Marks a new file as the state of this party, and runs the steps that the file lacks, all in one transaction. A file
 * with tables is copied first, for `goBack`.
 */
function migrate(database: DatabaseSync, file: string, { applicationId, steps }: Schema): void {
  const version = pragma(database, 'user_version');
  if (version > steps.length)
    throw new Error(`the state is of version ${version}; this program knows ${steps.length}`);
  if (version === steps.length) return;
  if (version > 0 && file !== ':memory:') keepCopy(database, copyOf(file, version));
  transaction(database, () => {
    if (version === 0) database.exec(`PRAGMA application_id = ${applicationId}`);
    for (const step of steps.slice(version)) database.exec(step);
    database.exec(`PRAGMA user_version = ${steps.length}`);
  });
}

/** The copy is complete and on the disk when this returns, so a migration that follows can be taken back. */
function keepCopy(database: DatabaseSync, copy: string): void {
  const part = copy + partial;
  rmSync(part, { force: true });
  // SQLite takes an empty file. One that SQLite makes could be read by other users.
  writeFileSync(part, '', { mode: 0o600 });
  database.prepare('VACUUM INTO ?').run(part);
  // VACUUM INTO does not sync what it writes.
  syncFile(part);
  renameSync(part, copy);
  syncFolder(dirname(copy));
}

/**
 * Runs `work` in a transaction and returns its result. All changes are written, or none when `work` throws. Within
 * another transaction `work` becomes part of that one.
 */
export function transaction<T>(database: DatabaseSync, work: () => T): T {
  if (database.isTransaction) return work();
  database.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    database.exec('COMMIT');
    return result;
  } catch (error) {
    // SQLite has rolled back by itself after some errors, such as a full disk.
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

/** Says that a value in the database is not known. A later version of the program wrote it, or a person. */
export const unknownValue = (column: string, value: unknown): string =>
  `the state has ${column} = ${value}, which this program does not know`;

/**
 * Checks a value that was read from the database.
 * @param column table and column, such as `device.mode`
 * @throws {PosternError} `configuration` for a value that this program does not know
 */
export function knownValue<T>(known: readonly T[], value: unknown, column: string): T {
  if (!known.includes(value as T)) throw new PosternError('configuration', unknownValue(column, value));
  return value as T;
}

/**
 * Reads all rows of a table. A row that `read` refuses is left out; it stays in the table, and the reason is added to
 * `unreadable`.
 * @param table a constant of the program: it becomes part of the SQL
 */
export function* readRows<T>(
  database: DatabaseSync,
  table: string,
  read: (row: Record<string, unknown>) => T,
  unreadable: string[],
): Generator<T> {
  for (const row of database.prepare(`SELECT * FROM ${table}`).iterate())
    try {
      yield read(row);
    } catch (thrown) {
      unreadable.push(asPosternError(thrown).message);
    }
}

/**
 * Keeps the newest `limit` rows of a table whose row IDs rise. Returns how many rows were deleted.
 * @param table a constant of the program: it becomes part of the SQL
 */
export function keepLatest(database: DatabaseSync, table: string, limit: number): number {
  // Row IDs have gaps, so the span is never less than the number of rows. Counting would read the whole table each
  // time.
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
