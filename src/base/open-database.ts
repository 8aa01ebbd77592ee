import { chmodSync, existsSync, mkdirSync, renameSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Database } from './database.ts';
import { Durability, logBytes } from './durability.ts';
import { syncFile, syncFolder } from './durable.ts';
import { PosternError } from './errors.ts';

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
 * Opens the file that holds all durable state of a party, and brings its tables up to date. A committed transaction
 * survives a power cut once `Database.settled` has resolved. The state of `:memory:` lives as long as the process.
 * @throws {PosternError} `configuration` when the file cannot be used, is of a later version, or belongs to another
 * party
 */
export function openDatabase(file: string, schema: Schema): Database {
  let database: DatabaseSync | undefined;
  try {
    const isFile = file !== ':memory:';
    const isNew = isFile && !existsSync(file);
    if (isFile) {
      mkdirSync(dirname(file), { recursive: true });
      goBack(file, schema);
    }
    database = new DatabaseSync(file);
    let ownsFile = false;
    try {
      // Nothing is written before this check: the file may belong to somebody else.
      checkParty(database, schema);
    } catch (cause) {
      if (!isFile || (cause as { errcode?: number }).errcode !== noRoomForIndex) throw cause;
      // On a full disk there is no room for the index of the write-ahead log. It is kept in memory instead, which wants the
      // file for this connection alone.
      database.close();
      database = new DatabaseSync(file);
      database.exec('PRAGMA locking_mode = EXCLUSIVE');
      checkParty(database, schema);
      ownsFile = true;
    }
    // The file holds secrets.
    if (isFile) chmodSync(file, 0o600);
    // NORMAL: a commit does not wait for the disk. `Durability` waits, and has checkpoints made.
    database.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = ON',
    );
    database.exec(`PRAGMA journal_size_limit = ${logBytes.growth}`);
    migrate(database, file, schema);
    if (isNew) syncFolder(dirname(file));
    const opened = database;
    const checkpoint = () => opened.exec('PRAGMA wal_checkpoint(PASSIVE)');
    if (!isFile) return new Database(opened);
    const hasRoom = () => {
      const { bavail, bsize } = statfsSync(dirname(file));
      return bavail * bsize >= roomWanted;
    };
    return new Database(opened, new Durability(file, checkpoint, ownsFile), hasRoom);
  } catch (cause) {
    database?.close();
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('configuration', `the state file ${file} cannot be used: ${why}`, { cause });
  }
}

/** Bytes that must be free before a full disk counts as writable again. */
const roomWanted = 256 * 1024;

/** SQLITE_IOERR_SHMSIZE. */
const noRoomForIndex = 10 | (19 << 8);

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
  database.exec('BEGIN IMMEDIATE');
  // If a step fails, the file is closed, which rolls back.
  if (version === 0) database.exec(`PRAGMA application_id = ${applicationId}`);
  for (const step of steps.slice(version)) database.exec(step);
  database.exec(`PRAGMA user_version = ${steps.length}`);
  database.exec('COMMIT');
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
