import {
  accessSync,
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  mkdtempSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { copyOf, goodCopy, openSound, type Recovery } from './recover-state.ts';
import { isDamage, type Schema } from './state-schema.ts';

/** Folders for the copy, the best first: the copy is removed as soon as it is open. */
const folders = () => ['/dev/shm', tmpdir()];
/** Bytes of a state file, of its log and of its earlier copies together that are copied. */
const copyLimit = 256 * 1024 * 1024;

/** Whether the disk of a file takes no writes because it is read-only. Missing rights are another matter. */
export function isReadOnlyDisk(file: string): boolean {
  const looks = [
    () => accessSync(dirname(file), constants.W_OK),
    () => accessSync(file, constants.W_OK),
    // Where ext4 has found an error, only a real change shows it.
    () => chmodSync(file, statSync(file).mode & 0o7777),
  ];
  return looks.some((look) => {
    try {
      look();
      return false;
    } catch (thrown) {
      return (thrown as NodeJS.ErrnoException).code === 'EROFS';
    }
  });
}

/** The file on the disk is not the one that was copied. */
export class OutdatedState extends Error {}

/** Tells whether a state file and its log are still those that were copied. */
export const stateMark = (file: string): string =>
  ['', '-wal']
    .map((end) => statSync(file + end, { throwIfNoEntry: false }))
    .map((found) => (found && found.size > 0 ? `${found.ino} ${found.size} ${found.mtimeMs}` : 'none'))
    .join();

/**
 * Opens what a state file holds whose disk takes no writes, to be read: `Database` refuses writes. SQLite has to write beside a
 * file with a write-ahead log before it can read it, so a copy is opened: committed changes in the log are seen, a migration is made in the copy, and a damaged
 * file is replaced by its last good copy, all as on a disk that can be written. The files of the copy are deleted at once and
 * live on until the database is closed.
 * @param kind of the disk. On a full one the file is sound, so its good copies are not needed
 * @param open opens a state file
 * @throws {Error} when there is no state, or no folder for the copy
 */
export function openCopy(
  file: string,
  schema: Schema,
  kind: 'read-only' | 'full',
  open: (copy: string) => DatabaseSync,
): { sqlite: DatabaseSync; recovery?: Recovery } {
  const parts = [
    ...[file, `${file}-wal`],
    ...(kind === 'full' ? [] : [goodCopy(file, 1), goodCopy(file, 2)]),
    ...schema.steps.map((_, at) => copyOf(file, schema.steps.length - at)),
  ].filter((part) => (statSync(part, { throwIfNoEntry: false })?.size ?? 0) > 0);
  if (parts.length === 0) throw new Error(`the disk is ${kind}, and there is no state yet`);
  const bytes = parts.reduce((sum, part) => sum + statSync(part).size, 0);
  if (bytes > copyLimit) throw new Error(`the disk is ${kind}, and ${bytes} bytes are too many for a copy`);
  const folder = copyParts(file, parts, kind);
  try {
    const copy = join(folder, basename(file));
    const { opened, recovery } = openSound(copy, schema, existsSync(file), () => open(copy));
    try {
      // One file without a log needs no other file once it is open.
      opened.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE');
      if (!recovery) return { sqlite: opened };
      const { reason, used, since } = recovery;
      if (used === undefined) throw new Error(`the disk is ${kind}, and the state is damaged: ${reason}`);
      const told = { reason, used: used.replace(copy, file), ...(since !== undefined && { since }) };
      return { sqlite: opened, recovery: told };
    } catch (thrown) {
      opened.close();
      throw thrown;
    }
  } catch (thrown) {
    if (isDamage(thrown)) throw new Error(`the disk is ${kind}, and ${(thrown as Error).message}`);
    throw thrown;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Copies files into the first folder that takes them. Returns the folder that was made there. */
function copyParts(file: string, parts: readonly string[], kind: string): string {
  const reasons: string[] = [];
  for (const each of folders()) {
    let folder: string | undefined;
    try {
      folder = mkdtempSync(join(each, 'postern-state-'));
      for (const part of parts) {
        const target = join(folder, basename(file)) + part.slice(file.length);
        copyFileSync(part, target);
        const { atime, mtime } = statSync(part);
        utimesSync(target, atime, mtime);
      }
      return folder;
    } catch (thrown) {
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
      reasons.push(String((thrown as Error).message));
    }
  }
  throw new Error(`the disk is ${kind}, and no folder takes a copy of the state: ${reasons.join('; ')}`);
}
