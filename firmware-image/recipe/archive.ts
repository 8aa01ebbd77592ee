import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import type { ArchiveFile } from './lock.ts';
import { howToMove } from './lock.ts';
import { parentOf, run } from './tools.ts';

type ArchiveName = 'debian' | 'debian-security';
/** Mirrors of Debian's archives: base URLs, by the name of the archive. */
export type Mirrors = Readonly<Record<ArchiveName, readonly string[]>>;

/** Places with Debian's archives. The first that has a file with its digest counts. */
export interface Places {
  readonly mirrors: Mirrors;
  /** Base URL of what keeps everything that was ever in the archives, by time. */
  readonly snapshot: string;
}

const helper = '/usr/lib/apt/apt-helper';
/** Debian's own snapshots. */
export const snapshot = 'http://snapshot.debian.org/archive';

/** The archive of a file. The pool of security updates has a folder of its own. */
const archiveOf = (path: string): ArchiveName =>
  path.startsWith('pool/updates/') ? 'debian-security' : 'debian';

export const sha256Of = (file: string): string =>
  createHash('sha256').update(readFileSync(file)).digest('hex');

/**
 * Gets a file of the archive, from the first place that has it. A place that has other bytes under this name is passed over. The
 * file is complete or absent, also when another process gets the same one.
 * @param what name and version, for the message
 * @param to path of the file. When it is there with the right digest, nothing is done
 * @throws {Error} when no place has it; the message names each place with its reason
 */
export function fetchFile(
  what: string,
  { path, sha256, seen }: ArchiveFile,
  to: string,
  places: Places,
): string {
  if (existsSync(to) && sha256Of(to) === sha256) return to;
  const part = `${parentOf(to)}.${process.pid}`;
  const reasons: string[] = [];
  const archive = archiveOf(path);
  for (const place of [...places.mirrors[archive], `${places.snapshot}/${archive}/${seen}`]) {
    const url = `${place.replace(/\/$/, '')}/${path}`;
    try {
      run(helper, ['-o', 'APT::Sandbox::User=root', 'download-file', url, part, `SHA256:${sha256}`]);
      if (sha256Of(part) !== sha256) throw new Error('Hash Sum mismatch');
      renameSync(part, to);
      return to;
    } catch (thrown) {
      reasons.push(`  ${url}: ${reasonIn((thrown as Error).message)}`);
    } finally {
      rmSync(part, { force: true });
      rmSync(`${part}.FAILED`, { force: true });
    }
  }
  throw new Error(`nobody has ${what} as the lock has it:\n${reasons.join('\n')}\n${howToMove}`);
}

/** What apt says of a failed download, without its surroundings. */
const reasonIn = (message: string): string =>
  /Hash Sum mismatch/.exec(message)?.[0] ??
  /^E: Failed to fetch \S+\s+(.*)$/m.exec(message)?.[1] ??
  message.split('\n')[0]!;
