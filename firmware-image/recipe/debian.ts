import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { mirrorsHere } from './apt.ts';
import { fetchFile, type Places, snapshot } from './archive.ts';
import { filesOf } from './deb822.ts';
import { howToMove, type Lock, lockedFor, readLock } from './lock.ts';
import { output, parentOf, run } from './tools.ts';

/** A package of Debian. It is unpacked in a folder of its own, so that the package of each file is known. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly folder: string;
}

/** Where packages come from, and where they are kept. */
export interface PackageStore {
  readonly lock: Lock;
  readonly places: Places;
  /** Folder of the cache. */
  readonly cache: string;
}

let usual: PackageStore | undefined;

/** The lock of the recipe, the mirrors of this machine with the snapshot behind them, and the usual cache. */
export function usualStore(): PackageStore {
  usual ??= {
    lock: readLock(),
    places: { mirrors: mirrorsHere(), snapshot },
    cache: join(output, 'cache'),
  };
  return usual;
}

/**
 * Gets and unpacks packages of Debian for arm64, with all their dependencies, in the versions of the lock. They are cached.
 * @throws {Error} when the lock does not know one, or nobody has a package as the lock has it
 */
export function debianPackages(wanted: readonly string[], store = usualStore()): DebianPackage[] {
  const { lock, places, cache } = store;
  return lockedFor(wanted, lock).map((locked) => {
    const { name, version, path, sha256 } = locked;
    // The digest is in the name, so that other bytes of the same version are not taken for these.
    const folder = join(cache, 'packages', `${basename(path, '.deb')}-${sha256.slice(0, 12)}`);
    if (!existsSync(folder)) {
      const archive = join(cache, 'archives', basename(path));
      unpack(fetchFile(`${name} ${version}`, locked, archive, places), folder);
    }
    return { name, version, folder };
  });
}

/**
 * Gets a source package in the version of the lock, and checks all its files. Returns the path of its description (`.dsc`), whose
 * name has the version. The other files are in the same folder.
 * @param source name, or name and version
 * @throws {Error} when the lock does not know it, or nobody has a file of it
 */
export function debianSource(source: string, store = usualStore(), to = join(store.cache, 'source')): string {
  const { lock, places } = store;
  const found = lock.sources.find((one) => one.source === source || one.source.startsWith(`${source} `));
  if (!found) throw new Error(`the lock has no source of ${source}; ${howToMove}`);
  const { path, sha256, seen } = found;
  if (path === undefined || sha256 === undefined || seen === undefined)
    throw new Error(
      `no mirror had the source of ${found.source} when the lock was moved; it is at https://snapshot.debian.org/package/${found.source.replace(' ', '/')}/`,
    );
  const description = fetchFile(
    `the source of ${found.source}`,
    { path, sha256, seen },
    join(to, basename(path)),
    places,
  );
  for (const { name, sha256: digest } of filesOf(readFileSync(description, 'utf8')))
    fetchFile(name, { path: join(dirname(path), name), sha256: digest, seen }, join(to, name), places);
  return description;
}

/** Unpacks an archive to a folder that is either complete or absent, even if another process unpacks the same one. */
function unpack(archive: string, folder: string): void {
  const part = `${folder}.${process.pid}`;
  mkdirSync(dirname(part), { recursive: true });
  run('dpkg-deb', ['-x', archive, parentOf(part)]);
  try {
    renameSync(part, folder);
  } catch (thrown) {
    rmSync(part, { recursive: true });
    if (!existsSync(folder)) throw thrown;
  }
}
