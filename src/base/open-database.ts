import { chmodSync, existsSync, renameSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Database } from './database.ts';
import { isDiskFull } from './disk-room.ts';
import { Durability, logBytes } from './durability.ts';
import { syncFile, syncFolder } from './durable.ts';
import { PosternError } from './errors.ts';
import { makeFolder } from './make-folder.ts';
import { demandOf } from './named-file.ts';
import { isReadOnlyDisk, OutdatedState, openCopy, stateMark } from './read-only-state.ts';
import { copyOf, foldLog, isMarked, openSound, partial } from './recover-state.ts';
import { StateCopies } from './state-copies.ts';
import type { Opened, WaitingFile } from './state-file.ts';
import { actualFile, StateLock } from './state-lock.ts';
import { checkParty, checkSound, forgetEpoch, pragma, type Schema } from './state-schema.ts';

export type { Schema };

/**
 * Opens the file that holds all durable state of a party, and brings its tables up to date. A committed transaction
 * survives a power cut once `Database.settled` has resolved. No other process can open the file until the database is
 * closed. A damaged file is replaced by the last good state: see `Database.recovery`. On a read-only disk, and on one that has
 * no room for a migration, the state can be read and not written. The state of `:memory:` lives as long as the process.
 * @throws {PosternError} `configuration` when the file cannot be used, is used by another process, is of a later version,
 * or belongs to another party
 */
export function openDatabase(name: string, schema: Schema): Database {
  const file = actualFile(name);
  try {
    if (file === ':memory:') return new Database(openFile(file, schema).sqlite);
    if (isReadOnlyDisk(file)) return openToRead(file, schema);
    const { sqlite, state } = openToWrite(file, schema);
    return new Database(sqlite, state);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('configuration', `the state file ${file} cannot be used: ${why}`, { cause });
  }
}

/**
 * Opens the state of a file on a read-only disk. What it holds can be read, all writes are refused, and the database goes over to
 * the file itself when the disk takes writes again.
 */
function openToRead(file: string, schema: Schema): Database {
  const lock = new StateLock(file, true);
  try {
    const mark = stateMark(file);
    const { sqlite, recovery } = openCopy(
      file,
      schema,
      'read-only',
      (copy) => openFile(copy, schema, false).sqlite,
    );
    const reopen = () => {
      if (isReadOnlyDisk(file)) return undefined;
      if (stateMark(file) !== mark)
        throw new OutdatedState(`${file} is not what it was while its disk was read-only: a restart uses it`);
      return openToWrite(file, schema);
    };
    const waiting = { reason: 'the disk of the state is read-only', reopen };
    return new Database(sqlite, { lock, hasRoom: () => true, recovery, waiting });
  } catch (thrown) {
    lock.close();
    throw thrown;
  }
}

/** Opens a state file with its lock, which is let go when that fails. */
function openToWrite(file: string, schema: Schema): Opened {
  makeFolder(dirname(file));
  demandFiles(file);
  const lock = new StateLock(file);
  try {
    const wasOurs = lock.party === schema.applicationId;
    const { opened, recovery } = openSound(file, schema, wasOurs, () => openOrCopy(file, schema));
    if (!wasOurs) lock.party = schema.applicationId;
    return stateOf(opened);

    function stateOf({ sqlite, ownsFile, refusal }: OpenFile): Opened {
      const hasRoom = () => isFree(file, roomWanted);
      if (refusal !== undefined) {
        const waiting = waitingFile(file, sqlite, refusal, () => stateOf(openFile(file, schema)));
        return { sqlite, state: { hasRoom, lock, recovery, waiting } };
      }
      const checkpoint = () => sqlite.exec('PRAGMA wal_checkpoint(PASSIVE)');
      const durability = new Durability(file, checkpoint, ownsFile);
      // A file that this connection has for itself cannot be copied by another one.
      const copies = ownsFile ? undefined : new StateCopies(file, () => durability.commits);
      return { sqlite, state: { durability, hasRoom, lock, copies, recovery } };
    }
  } catch (thrown) {
    lock.close();
    throw thrown;
  }
}

/**
 * A file that cannot be opened, because its disk refuses what has to be written first. The file is tried again when the disk has
 * room for that. An attempt may write a copy of the whole state, so the pause between two attempts doubles.
 */
function waitingFile(file: string, copy: DatabaseSync, refusal: string, open: () => Opened): WaitingFile {
  const needed = 2 * roomWanted + pragma(copy, 'page_count') * pragma(copy, 'page_size');
  const reason = `the state cannot be migrated until ${Math.ceil(needed / 1e6)} MB are free on its disk: ${refusal}`;
  let pause = 1;
  let looks = 0;
  const reopen = () => {
    if (--looks > 0 || !isFree(file, needed)) return undefined;
    pause = Math.min(2 * pause, pauseLimit);
    looks = pause;
    try {
      return open();
    } catch (thrown) {
      if (isRefusal(file, thrown)) return undefined;
      throw thrown;
    }
  };
  return { reason, reopen };
}

interface OpenFile {
  readonly sqlite: DatabaseSync;
  /** No other connection can open the file. */
  readonly ownsFile: boolean;
  /** Why a copy in memory is open instead of the file. */
  readonly refusal?: string;
}

/** Opens the file, or a copy in memory when the disk refuses what has to be written first, such as a migration. */
function openOrCopy(file: string, schema: Schema): OpenFile {
  try {
    return openFile(file, schema);
  } catch (thrown) {
    if (!existsSync(file) || !isRefusal(file, thrown)) throw thrown;
    const { sqlite } = openCopy(file, schema, 'full', (copy) => openFile(copy, schema, false).sqlite);
    return { sqlite, ownsFile: false, refusal: (thrown as Error).message };
  }
}

/** Whether a disk refuses to write a state file because the disk is full or failing. */
function isRefusal(file: string, thrown: unknown): boolean {
  const { code, errcode = 0 } = thrown as { code?: string; errcode?: number };
  // A file that SQLite cannot create may be one too many.
  if ((errcode & 0xff) === cannotOpen) return statfsSync(dirname(file)).ffree === 0;
  return isDiskFull(thrown) || code === 'EIO' || refusals.has(errcode & 0xff);
}

function isFree(file: string, bytes: number): boolean {
  const { bavail, bsize } = statfsSync(dirname(file));
  return bavail * bsize >= bytes;
}

/**
 * Opens the file and closes it again when that fails.
 * @param keepsWayBack whether the state is copied before it is migrated
 */
function openFile(file: string, schema: Schema, keepsWayBack = true): OpenFile {
  const isFile = file !== ':memory:';
  if (isFile && !existsSync(file)) create(file, schema);
  const ownsFile = isFile && !checkUntouched(file, schema);
  if (isFile && !ownsFile) goBack(file, schema);
  const sqlite = new DatabaseSync(file);
  try {
    if (ownsFile) {
      sqlite.exec('PRAGMA locking_mode = EXCLUSIVE');
      checkParty(sqlite, schema);
      checkSound(sqlite);
    }
    // The file holds secrets.
    if (isFile) chmodSync(file, 0o600);
    // NORMAL: a commit does not wait for the disk. `Durability` waits, and has checkpoints made.
    sqlite.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = ON',
    );
    sqlite.exec(`PRAGMA journal_size_limit = ${logBytes.growth}`);
    migrate(sqlite, schema, keepsWayBack && isFile ? file : undefined);
    return { sqlite, ownsFile };
  } catch (thrown) {
    sqlite.close();
    throw thrown;
  }
}

/**
 * Makes a new state file under another name, and renames it when it is complete and on the disk. A power cut leaves the
 * whole file or none. SQLite itself would leave an empty file with a rollback journal, which a connection that only reads
 * cannot open.
 */
function create(file: string, schema: Schema): void {
  const part = file + partial;
  for (const end of ['', '-journal', '-wal', '-shm']) rmSync(part + end, { force: true });
  // SQLite takes an empty file. One that SQLite makes could be read by other users.
  writeFileSync(part, '', { mode: 0o600 });
  {
    using made = new DatabaseSync(part);
    migrate(made, schema);
    // The mode is stored in the file. The last connection removes the log when it is closed.
    made.exec('PRAGMA journal_mode = WAL');
  }
  syncFile(part);
  renameSync(part, file);
  syncFolder(dirname(file));
}

/**
 * Checks a file by a connection that cannot write. The file may belong to somebody else; and a connection that can write
 * moves the write-ahead log into the file when it is closed, which destroys the file when that log is not its own. Returns
 * false when the file cannot be read in this way: on a full disk there is no room for the index of the write-ahead log. The
 * index is then kept in memory, which wants the file for one connection alone.
 */
function checkUntouched(file: string, schema: Schema, isPlayedBack = false): boolean {
  try {
    using reader = new DatabaseSync(file, { readOnly: true });
    checkParty(reader, schema);
    checkSound(reader);
    return true;
  } catch (thrown) {
    const { errcode } = thrown as { errcode?: number };
    if (errcode === hotJournal && !isPlayedBack && isMarked(file, schema)) {
      playBack(file);
      return checkUntouched(file, schema, true);
    }
    if (errcode !== noRoomForIndex) throw thrown;
    return false;
  }
}

/**
 * Lets SQLite play a rollback journal back that stands beside the file. This program leaves none behind; a tool that was
 * killed, or a file that was put there, would keep the party from starting. A journal that is none is deleted.
 */
function playBack(file: string): void {
  using writer = new DatabaseSync(file);
  writer.prepare('SELECT 1 FROM sqlite_schema').get();
}

/** A pipe would make SQLite wait for ever. Of a folder or a device it would say no more than that it cannot open it. */
function demandFiles(file: string): void {
  for (const end of ['', '-journal', '-wal', '-shm', '.lock']) {
    const facts = statSync(file + end, { throwIfNoEntry: false });
    const reason = facts && demandOf(facts);
    if (reason !== undefined) throw new Error(`${file + end} ${reason}`);
  }
}

/** Bytes that must be free before a full disk counts as writable again. */
const roomWanted = 256 * 1024;

/** SQLITE_READONLY_ROLLBACK. */
const hotJournal = 8 | (3 << 8);
/** SQLITE_IOERR_SHMSIZE. */
const noRoomForIndex = 10 | (19 << 8);
/** SQLITE_IOERR and SQLITE_FULL. */
const refusals: ReadonlySet<number> = new Set([10, 13]);
/** SQLITE_CANTOPEN. */
const cannotOpen = 14;
/** Looks between two attempts to open a file that waits for room, at most. */
const pauseLimit = 64;

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
  }
  // SQLite would apply the log of the later file to the copy.
  foldLog(file);
  renameSync(latest, file);
  syncFolder(dirname(file));
}

/**
 * Deletes the copies that were made before migrations. Called when the running slot has proved itself, so that no
 * earlier program will need them.
 */
export function dropCopies(name: string, { steps }: Schema): void {
  if (name === ':memory:') return;
  const file = actualFile(name);
  for (const at of steps.keys())
    for (const end of ['', partial]) rmSync(copyOf(file, at + 1) + end, { force: true });
}

/**
 * Marks a new file as the state of this party, and runs the steps that the file lacks, all in one transaction.
 * @param file a file with tables is copied first, for `goBack`
 */
function migrate(database: DatabaseSync, { applicationId, steps }: Schema, file?: string): void {
  const version = pragma(database, 'user_version');
  if (version > steps.length)
    throw new Error(`the state is of version ${version}; this program knows ${steps.length}`);
  if (version === steps.length) return;
  if (version > 0 && file !== undefined) keepCopy(database, copyOf(file, version));
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
  try {
    // SQLite takes an empty file. One that SQLite makes could be read by other users.
    writeFileSync(part, '', { mode: 0o600 });
    database.prepare('VACUUM INTO ?').run(part);
    {
      using made = new DatabaseSync(part);
      forgetEpoch(made);
    }
    // VACUUM INTO does not sync what it writes.
    syncFile(part);
  } catch (thrown) {
    rmSync(part, { force: true });
    throw thrown;
  }
  renameSync(part, copy);
  syncFolder(dirname(copy));
}
