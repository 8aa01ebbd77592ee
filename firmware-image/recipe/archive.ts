import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import type { ArchiveFile } from './lock.ts';
import { howToMove } from './lock.ts';
import { parentOf, run } from './tools.ts';

/** Places with Debian's archives: base URLs, by the name of the archive. The first that has a file with its digest counts. */
export type Places = Readonly<Record<'debian' | 'debian-security', readonly string[]>>;

const helper = '/usr/lib/apt/apt-helper';
/** Keeps everything that was ever in Debian's archive. */
const snapshot = 'http://snapshot.debian.org/archive';

/** The archive of a file. The pool of security updates has a folder of its own. */
const archiveOf = (path: string): keyof Places =>
  path.startsWith('pool/updates/') ? 'debian-security' : 'debian';

/**
 * Adds the snapshot of the archives to some mirrors, for files that they no longer have.
 * @param taken time of the lock, as snapshot.debian.org writes it
 */
export const withSnapshot = (mirrors: Places, taken: string, base = snapshot): Places => ({
  debian: [...mirrors.debian, `${base}/debian/${taken}`],
  'debian-security': [...mirrors['debian-security'], `${base}/debian-security/${taken}`],
});

export const sha256Of = (file: string): string =>
  createHash('sha256').update(readFileSync(file)).digest('hex');

/**
 * Gets a file of the archive, from the first place that has it. A place that has other bytes under this name is passed over. The
 * file is complete or absent, also when another process gets the same one.
 * @param what name and version, for the message
 * @param to path of the file. When it is there with the right digest, nothing is done
 * @throws {Error} when no place has it; the message names each place with its reason
 */
export function fetchFile(what: string, { path, sha256 }: ArchiveFile, to: string, places: Places): string {
  if (existsSync(to) && sha256Of(to) === sha256) return to;
  const part = `${parentOf(to)}.${process.pid}`;
  const reasons: string[] = [];
  for (const place of places[archiveOf(path)]) {
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
