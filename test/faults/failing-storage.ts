import fs from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { DatabaseSync, StatementSync } from 'node:sqlite';

/**
 * Everything that a program writes below one path, and one write of it that fails. It stands between the program and
 * node:sqlite and node:fs. A write that fails did not happen.
 */
export interface Watched {
  /** What was written so far, in its order: SQL text, or the call and the file. */
  readonly places: string[];
  /** The place that fails, counted from 0; undefined: none does. */
  failAt: number | undefined;
  /** Whether SQLite rolls the transaction back by itself when it finds the disk full. It may do so. */
  endsTransaction: boolean;
  /** Places that fail each time, besides. */
  refuses: RegExp | undefined;
  /** The place that failed. */
  failed: string | undefined;
  /** Called at each place. */
  onWrite: () => void;
  /** Called when a place has failed. */
  onFailed: () => void;
}

const watched = new Map<string, Watched>();

/**
 * Begins to count what is written to files whose path begins with `path`. The counting ends with `unwatch`.
 * @param failAt the place that fails, counted from 0
 */
export function watch(path: string, failAt?: number, endsTransaction = false): Watched {
  const found: Watched = {
    places: [],
    failAt,
    endsTransaction,
    refuses: undefined,
    failed: undefined,
    onWrite: () => {},
    onFailed: () => {},
  };
  watched.set(path, found);
  return found;
}

export const unwatch = (path: string): void => void watched.delete(path);

let isPaused = false;

/** Does what belongs to the test itself: nothing is counted, and nothing fails. */
export function unwatched<T>(work: () => T): T {
  isPaused = true;
  try {
    return work();
  } finally {
    isPaused = false;
  }
}

/** True when this write is the one that fails. */
function fails(file: string, place: string, database?: DatabaseSync): boolean {
  for (const [path, found] of watched) {
    if (isPaused || !file.startsWith(path)) continue;
    const at = found.places.push(place) - 1;
    found.onWrite();
    if (found.refuses?.test(place)) return true;
    if (at !== found.failAt) return false;
    found.failed = place;
    if (found.endsTransaction && database?.isTransaction) exec.call(database, 'ROLLBACK');
    found.onFailed();
    return true;
  }
  return false;
}

/** An error as node:sqlite throws it when the disk is full (SQLITE_FULL). */
const full = () =>
  Object.assign(new Error('database or disk is full'), { code: 'ERR_SQLITE_ERROR', errcode: 13 });
const noSpace = () =>
  Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC', errno: -28 });
const broken = () => Object.assign(new Error('EIO: i/o error'), { code: 'EIO', errno: -5 });

const { exec, prepare } = DatabaseSync.prototype;
const { run } = StatementSync.prototype;
/** SQL that `exec` is given and that writes nothing, or whose failure means nothing. */
const harmless = /^(ROLLBACK|VACUUM|PRAGMA(?! (user_version|application_id) =))/;
const databases = new WeakMap<StatementSync, DatabaseSync>();
const locations = new WeakMap<DatabaseSync, string>();

/** Databases that were used below a watched path. */
const opened = new Set<DatabaseSync>();

function locationOf(database: DatabaseSync): string {
  const known = locations.get(database);
  if (known !== undefined) return known;
  const found = database.location() ?? '';
  locations.set(database, found);
  opened.add(database);
  return found;
}

/** Closes all databases below a path, as the kernel does when a process ends that could not start. */
export function abandon(path: string): void {
  for (const database of opened) {
    if (!locationOf(database).startsWith(path)) continue;
    opened.delete(database);
    if (database.isOpen) database.close();
  }
}

DatabaseSync.prototype.prepare = function prepared(this: DatabaseSync, ...args: Parameters<typeof prepare>) {
  const statement = prepare.apply(this, args);
  databases.set(statement, this);
  return statement;
} as typeof prepare;
DatabaseSync.prototype.exec = function executed(this: DatabaseSync, sql: string) {
  if (watched.size > 0) {
    const location = locationOf(this);
    if (!harmless.test(sql) && fails(location, sql, this)) throw full();
  }
  exec.call(this, sql);
};
StatementSync.prototype.run = function ran(this: StatementSync, ...values: unknown[]) {
  const database = databases.get(this);
  if (watched.size > 0 && database && fails(locationOf(database), this.sourceSQL, database)) throw full();
  return run.apply(this, values as Parameters<typeof run>);
} as typeof run;

/** Path of an open file. */
const pathOf = (descriptor: number): string => fs.readlinkSync(`/proc/self/fd/${descriptor}`);

const { fdatasync, writeSync, fsyncSync, renameSync } = fs;
fs.fdatasync = ((descriptor: number, callback: fs.NoParamCallback) => {
  if (watched.size > 0 && fails(pathOf(descriptor), 'fdatasync')) setImmediate(callback, broken());
  else fdatasync(descriptor, callback);
}) as typeof fdatasync;
fs.writeSync = ((descriptor: number, ...rest: [string]) => {
  if (watched.size > 0 && descriptor > 2 && fails(pathOf(descriptor), 'write')) throw noSpace();
  return writeSync(descriptor, ...rest);
}) as typeof writeSync;
fs.fsyncSync = (descriptor) => {
  if (watched.size > 0 && fails(pathOf(descriptor), 'fsync')) throw broken();
  fsyncSync(descriptor);
};
fs.renameSync = (from, to) => {
  if (watched.size > 0 && fails(String(to), 'rename')) throw noSpace();
  renameSync(from, to);
};
// Programs name these functions in their imports.
syncBuiltinESMExports();

// Handles of files have their methods from a class that node:fs does not export.
const some: FileHandle = await open('/dev/null', 'r');
const handles = Object.getPrototypeOf(some) as FileHandle;
await some.close();
const { write, sync } = handles;
handles.write = async function wrote(this: FileHandle, ...args: [string]) {
  if (watched.size > 0 && fails(pathOf(this.fd), 'write of a chunk')) throw noSpace();
  return await write.apply(this, args);
} as typeof write;
handles.sync = async function synced(this: FileHandle) {
  if (watched.size > 0 && fails(pathOf(this.fd), 'sync of a file')) throw broken();
  await sync.call(this);
};
