import { lstatSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PosternError } from './errors.ts';
import { makeFolder } from './make-folder.ts';

/** Folder of this user for what only this user may open: below XDG_RUNTIME_DIR, or below the temporary folder. */
export const userFolder = (): string =>
  join(process.env.XDG_RUNTIME_DIR || tmpdir(), `postern-${process.getuid?.() ?? 0}`);

/**
 * Makes a folder that only this user may open, mode 0700. A folder that exists is checked: it must be a folder of its own,
 * not a link, of this user, and nobody else may write in it. In a folder like the temporary one another user could have made
 * it before, to replace what is in it.
 * @param what key of the configuration, for the error message
 * @throws {PosternError} `configuration` when the folder cannot be made, or belongs to somebody else
 */
export function makePrivateFolder(path: string, what: string): void {
  try {
    makeFolder(path, { mode: 0o700 });
  } catch (cause) {
    throw new PosternError('configuration', `${what}: ${path} cannot be created: ${String(cause)}`, {
      cause,
    });
  }
  checkPrivateFolder(path, what);
}

/**
 * Checks a folder as `makePrivateFolder` does. One that does not exist is fine.
 * @throws {PosternError} `configuration`
 */
export function checkPrivateFolder(path: string, what: string): void {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  if (!facts) return;
  const complaint = complaintAbout(facts.isDirectory(), facts.uid, facts.mode);
  if (complaint !== undefined) throw new PosternError('configuration', `${what}: ${path} ${complaint}`);
}

/** What is wrong with a folder and what helps, in words. Windows has no owners, and all files of a user are below folders of that user. */
function complaintAbout(isFolder: boolean, owner: number, mode: number): string | undefined {
  const user = process.getuid?.();
  if (!isFolder) return 'is no folder; name another one';
  if (user === undefined) return undefined;
  // Root may write everywhere, so a folder of root is no worse than one of the user.
  if (owner !== user && owner !== 0)
    return `belongs to another user (${owner}); remove it, or name another folder`;
  if ((mode & 0o022) === 0) return undefined;
  const complaint = `can be written by other users (mode ${(mode & 0o7777).toString(8)})`;
  // A folder like the temporary one is shared on purpose.
  return (mode & 0o1000) === 0
    ? `${complaint}; run chmod go-w on it, or name another folder`
    : `${complaint}; name another folder, such as one of this user in it`;
}
