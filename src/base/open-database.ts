import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { Database } from './database.ts';
import { Durability } from './durability.ts';
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
  const isFile = file !== ':memory:';
  let opened: DatabaseSync | undefined;
  try {
    if (isFile) mkdirSync(dirname(file), { recursive: true });
    if (isFile) goBack(file, schema);
    const isNew = isFile && !existsSync(file);
    opened = new DatabaseSync(file);
    // The file holds secrets.
    if (isFile) chmodSync(file, 0o600);
    // NORMAL: a commit does not wait for the disk. `Durability` waits, and has checkpoints made.
    opened.exec(
      'PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = ON',
    );
    checkParty(opened, schema);
    migrate(opened, file, schema);
    if (isNew) syncFolder(dirname(file));
    return new Database(opened, isFile ? new Durability(file) : undefined);
  } catch (cause) {
    opened?.close();
    if (cause instanceof PosternError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new PosternError('configuration', `the state file ${file} cannot be used: ${why}`, { cause });
  }
}

const versionOf = (database: DatabaseSync): number =>
  Number(database.prepare('PRAGMA user_version').get()?.user_version);

/**
 * Marks a new file as the state of this party, and refuses the file of another party. Files of version 0.1.0 have no
 * mark; they hold the tables of all parties and are accepted.
 */
function checkParty(database: DatabaseSync, { party, applicationId }: Schema): void {
  const found = Number(database.prepare('PRAGMA application_id').get()?.application_id);
  if (versionOf(database) === 0) database.exec(`PRAGMA application_id = ${applicationId}`);
  else if (found !== 0 && found !== applicationId)
    throw new PosternError('configuration', `it is not the state of a ${party} but of another program`);
}

/** The copy of the state file from before its migration from this version. */
const copyOf = (file: string, version: number): string => `${file}.version-${version}`;

/**
 * Restores the copy that was made before a migration, when the file has been migrated by a later program. This is the
 * case after an update was rolled back: migrations go forward only, so the earlier program cannot use the migrated
 * file.
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

/**
 * Deletes the copies that were made before migrations. Called when the running slot has proved itself, so that no
 * earlier program will need them.
 */
export function dropCopies(file: string, { steps }: Schema): void {
  if (file === ':memory:') return;
  for (const at of steps.keys()) rmSync(copyOf(file, at + 1), { force: true });
}

/** Runs the steps that the file lacks, each in a transaction. A file with tables is copied first, for `goBack`. */
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
    if (at >= version) database.exec(`BEGIN IMMEDIATE; ${step} PRAGMA user_version = ${at + 1}; COMMIT`);
}

/** The entry of a new file in its folder is durable from here on. */
function syncFolder(folder: string): void {
  const open = openSync(folder, 'r');
  try {
    fsyncSync(open);
  } finally {
    closeSync(open);
  }
}
