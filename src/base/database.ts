import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { PosternError } from './errors.ts';

/** The tables of one party, and how files of earlier versions get them. */
export interface Schema {
  /** Whose state it is, in words for people. */
  readonly party: string;
  /** Says in the file whose state it is (PRAGMA application_id). */
  readonly applicationId: number;
  /** SQL, one step per version of the schema. A step that was released is never changed. */
  readonly steps: readonly string[];
}

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
 * Opens the one file that holds all durable state of a party, and brings its schema up to date. What a transaction committed
 * survives a power cut (WAL, synchronous FULL). `:memory:` keeps it for as long as the process lives.
 * @throws {PosternError} `configuration` when the file cannot be used, is of a later version, or belongs to another party
 */
export function openDatabase(file: string, schema: Schema): DatabaseSync {
  try {
    if (file !== ':memory:') mkdirSync(dirname(file), { recursive: true });
    if (file !== ':memory:') goBack(file, schema);
    const database = preparingOnce(new DatabaseSync(file));
    // It holds secrets.
    if (file !== ':memory:') chmodSync(file, 0o600);
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON');
    checkParty(database, schema);
    migrate(database, file, schema);
    return database;
  } catch (cause) {
    if (cause instanceof PosternError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('configuration', `the state file ${file} cannot be used: ${why}`, { cause });
  }
}

const versionOf = (database: DatabaseSync): number =>
  Number(database.prepare('PRAGMA user_version').get()?.user_version);

/** Files that version 0.1.0 made say nothing here, and have the tables of all parties. */
function checkParty(database: DatabaseSync, { party, applicationId }: Schema): void {
  const found = Number(database.prepare('PRAGMA application_id').get()?.application_id);
  if (versionOf(database) === 0) database.exec(`PRAGMA application_id = ${applicationId}`);
  else if (found !== 0 && found !== applicationId)
    throw new PosternError('configuration', `it is not the state of a ${party}, but of another program`);
}

const copyOf = (file: string, version: number): string => `${file}.version-${version}`;

/**
 * Migrations go forward only. Where an earlier program finds state of a later one, the way back after an update, it takes the
 * copy that was made before the migration.
 */
function goBack(file: string, { steps }: Schema): void {
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
export function dropCopies(file: string, { steps }: Schema): void {
  if (file === ':memory:') return;
  for (const at of steps.keys()) rmSync(copyOf(file, at + 1), { force: true });
}

function migrate(database: DatabaseSync, file: string, { steps }: Schema): void {
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

/**
 * Keeps the newest `limit` rows of a table whose row IDs rise. Returns how many rows were deleted.
 * @param table a constant of the program: it becomes part of the SQL
 */
export function keepLatest(database: DatabaseSync, table: string, limit: number): number {
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
