import {
  closeSync,
  copyFileSync,
  existsSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { syncFile, syncFolder } from './durable.ts';
import {
  checkParty,
  checkSound,
  DamagedState,
  ForeignState,
  isDamage,
  pragma,
  type Schema,
} from './state-schema.ts';

/** What was done about a state that was damaged or lost. */
export interface Recovery {
  readonly reason: string;
  /** Where the damaged file is now; absent when there was none. */
  readonly aside?: string;
  /** What is used instead; absent when a new state began. */
  readonly used?: string;
  /** Time of what is used, in ISO 8601, by the clock of the machine: what was stored later is lost. */
  readonly since?: string;
}

/** Files of one kind that are kept aside. */
const asideLimit = 2;

/** The periodic copy of a state file: 1 is the latest, 2 the one before. */
export const goodCopy = (file: string, number: 1 | 2): string => `${file}.copy-${number}`;

/** The copy of the state file from before its migration from this version. */
export const copyOf = (file: string, version: number): string => `${file}.version-${version}`;

/** Ends the name of a copy that is not complete. */
export const partial = '.part';

/**
 * Opens a state file. A file that is damaged is set aside, and the last good state takes its place: the file without a
 * write-ahead log that does not belong to it, or a copy. Without a copy a new state begins.
 * @param wasOurs this file was the state of this party before: when it is gone, it was lost
 * @param open opens the file and throws when it is damaged
 */
export function openSound<T>(
  file: string,
  schema: Schema,
  wasOurs: boolean,
  open: () => T,
): { opened: T; recovery?: Recovery } {
  try {
    if (wasOurs) demandPresent(file);
    return { opened: open() };
  } catch (thrown) {
    // Nobody else's file is moved. A file of this party whose content is of another one has the log of the other one.
    const isRight = isMarked(file, schema);
    const isDamaged = isDamage(thrown) || (thrown instanceof ForeignState && isRight);
    if (!isDamaged || !(wasOurs || isRight)) throw thrown;
    const { message: reason } = thrown as Error;
    const copy = candidates(file, schema).find((each) => whyUnsound(each, schema) === undefined);
    return recover(file, reason, copy, open);
  }
}

function recover<T>(
  file: string,
  reason: string,
  copy: string | undefined,
  open: () => T,
): { opened: T; recovery: Recovery } {
  const hadFile = sizeOf(file) > 0;
  const hadLog = sizeOf(`${file}-wal`) > 0;
  const written = hadFile ? statSync(file).mtime : new Date(0);
  const aside = hadFile || hadLog ? setAside(file, 'corrupt', hadLog) : undefined;
  const told = { reason, ...(aside !== undefined && { aside }) };
  if (hadFile && hadLog && (copy === undefined || statSync(copy).mtime < written))
    try {
      const used = `${file} without its write-ahead log`;
      return {
        opened: open(),
        recovery: { reason, aside: `${aside}-wal`, used, since: written.toISOString() },
      };
    } catch (thrown) {
      if (!isDamage(thrown)) throw thrown;
    }
  if (existsSync(file)) moveAside(file, `${file}.corrupt-1`);
  if (copy === undefined) return { opened: open(), recovery: told };
  const since = statSync(copy).mtime.toISOString();
  takePlace(copy, file);
  return { opened: open(), recovery: { ...told, used: copy, since } };
}

/** Bytes of a file: 0 when there is none. */
const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

/** @throws {DamagedState} */
function demandPresent(file: string): void {
  if (!existsSync(file)) throw new DamagedState('the file is missing');
  if (sizeOf(file) === 0) throw new DamagedState('the file is empty');
}

/** Whether the header of the file says that it is the state of this party. No connection to the file is open here. */
export const isMarked = (file: string, { applicationId }: Schema): boolean => {
  if (!existsSync(file)) return false;
  const header = Buffer.alloc(100);
  const opened = openSync(file, 'r');
  try {
    readSync(opened, header);
  } finally {
    closeSync(opened);
  }
  return header.readUInt32BE(68) === applicationId;
};

const candidates = (file: string, { steps }: Schema): string[] => [
  goodCopy(file, 1),
  goodCopy(file, 2),
  ...steps.map((_, at) => copyOf(file, steps.length - at)),
];

/** Why a file cannot serve as the state of this party. Undefined when it can. */
export function whyUnsound(file: string, schema: Schema): string | undefined {
  if (!existsSync(file)) return 'there is no such file';
  try {
    using database = new DatabaseSync(file, { readOnly: true });
    checkParty(database, schema);
    const version = pragma(database, 'user_version');
    if (version === 0) return `it is not the state of a ${schema.party}`;
    if (version > schema.steps.length)
      return `it is of version ${version}; this program knows ${schema.steps.length}`;
    checkSound(database);
    return undefined;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
}

/**
 * Renames a state file. Its write-ahead log is renamed first: a state file never gets the log of another one. Returns the
 * new name.
 * @param kind part of the new name, such as `corrupt`. The latest two of a kind are kept
 * @param logOnly renames only the log
 */
export function setAside(file: string, kind: string, logOnly = false): string {
  const aside = (number: number) => `${file}.${kind}-${number}`;
  for (let number = asideLimit; number > 0; number--)
    for (const end of ['', '-wal']) {
      if (number === asideLimit) rmSync(aside(number) + end, { force: true });
      else moveAside(aside(number) + end, aside(number + 1) + end);
    }
  // A connection that only reads leaves an empty log.
  if (sizeOf(`${file}-wal`) > 0) moveAside(`${file}-wal`, `${aside(1)}-wal`);
  rmSync(`${file}-wal`, { force: true });
  rmSync(`${file}-shm`, { force: true });
  if (!logOnly) moveAside(file, aside(1));
  syncFolder(dirname(file));
  return aside(1);
}

/**
 * Moves the write-ahead log of a state file into the file and removes it. Leaves the journal mode as it is: a change of the
 * mode writes a rollback journal, and a file with such a journal cannot be opened by a connection that only reads.
 * @throws {Error} of SQLite when another process has the file open
 */
export function foldLog(file: string): void {
  {
    using alone = new DatabaseSync(file);
    alone.exec('PRAGMA locking_mode = EXCLUSIVE');
    // The lock is taken by the first read. The log is moved when the connection is closed.
    pragma(alone, 'user_version');
  }
  rmSync(`${file}-wal`, { force: true });
  syncFolder(dirname(file));
}

function moveAside(from: string, to: string): void {
  if (existsSync(from)) renameSync(from, to);
}

/** Puts a copy in the place of the state file. The copy stays, where the disk has room for both. */
function takePlace(copy: string, file: string): void {
  const part = file + partial;
  try {
    rmSync(part, { force: true });
    copyFileSync(copy, part);
    syncFile(part);
    renameSync(part, file);
  } catch (thrown) {
    rmSync(part, { force: true });
    if ((thrown as { code?: string }).code !== 'ENOSPC') throw thrown;
    renameSync(copy, file);
  }
  syncFolder(dirname(file));
}
