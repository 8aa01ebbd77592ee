import { OwnApt } from './apt.ts';
import type { ArchiveFile, Lock, LockedPackage, LockedSource } from './lock.ts';
import { nodePackage, npmFacts } from './npm.ts';
import { nodeSourceDigest } from './sources.ts';
import { lockedPackages, lockedSources, sysrootPackages } from './wanted.ts';

type Record_ = Readonly<Record<string, string>>;

/**
 * Asks apt and npm what they have now. Returns the lock for that.
 * @param before the lock that moves
 */
export async function currentLock(nodeVersion: string, before?: Lock): Promise<Lock> {
  const apt = new OwnApt();
  const now = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const needs = new Map<string, { name: string; version: string; for: string[] }>();
  const need = (name: string, version: string, by: string) => {
    const known = needs.get(name) ?? { name, version, for: [] };
    known.for.push(by);
    needs.set(name, known);
  };
  for (const wanted of lockedPackages)
    for (const { name, version } of apt.installs(wanted)) need(name, version, wanted);
  for (const wanted of sysrootPackages)
    for (const { name, version } of apt.installs(wanted)) if (name === wanted) need(name, version, 'sysroot');
  const records = apt.packages([...needs.values()]);
  const packages = [...needs.values()]
    .map((one) => lockedPackage(one, records, now))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const source = await nodeSourceDigest(nodeVersion);
  return {
    node: {
      version: nodeVersion,
      integrity: npmFacts(`${nodePackage}@${nodeVersion}`).integrity,
      ...(source !== undefined && { source }),
    },
    packages: seenBefore(packages, before?.packages),
    sources: seenBefore(sourcesOf(packages, apt, now), before?.sources),
  };
}

/** What has not moved keeps its time, so that only what moved differs in the lock. */
const seenBefore = <T extends Partial<ArchiveFile>>(now: readonly T[], before: readonly T[] = []): T[] =>
  now.map((one) => {
    const known = before.find(({ path, sha256 }) => path === one.path && sha256 === one.sha256);
    return known?.seen === undefined ? one : { ...one, seen: known.seen };
  });

function lockedPackage(
  { name, version, for: wanted }: { name: string; version: string; for: string[] },
  records: readonly Record_[],
  seen: string,
): LockedPackage {
  const found = records.find((one) => one.Package === name && one.Version === version);
  if (!found?.Filename || !found.SHA256) throw new Error(`apt has no record of ${name} ${version}`);
  // `Source: glib2.0 (2.74.6-2)`; the version is absent when it is that of the package.
  const [, source = name, of = version] = /^(\S+)(?: \((.*)\))?$/.exec(found.Source ?? name) ?? [];
  const builtUsing = [...(found['Built-Using'] ?? '').matchAll(/(\S+) \(= ([^)]+)\)/g)].map(
    ([, other, one]) => `${other} ${one}`,
  );
  return {
    name,
    version,
    path: found.Filename,
    sha256: found.SHA256,
    seen,
    source: `${source} ${of}`,
    ...(builtUsing.length > 0 && { builtUsing }),
    for: wanted,
  };
}

function sourcesOf(packages: readonly LockedPackage[], apt: OwnApt, seen: string): LockedSource[] {
  const wanted = new Set(packages.flatMap(({ source, builtUsing = [] }) => [source, ...builtUsing]));
  const records = apt.sources([...new Set([...wanted].map((one) => one.split(' ')[0]!)), ...lockedSources]);
  for (const name of lockedSources) {
    const versions = records.filter((one) => one.Package === name).map((one) => one.Version);
    // apt names the newest last.
    wanted.add(`${name} ${versions.at(-1)}`);
  }
  return [...wanted].toSorted().map((source) => {
    const found = records.find((one) => `${one.Package} ${one.Version}` === source);
    const [, sha256, name] =
      /^\s*([0-9a-f]{64}) \d+ (\S+\.dsc)$/m.exec(found?.['Checksums-Sha256'] ?? '') ?? [];
    if (!found?.Directory || sha256 === undefined) return { source };
    return { source, path: `${found.Directory}/${name}`, sha256, seen };
  });
}
