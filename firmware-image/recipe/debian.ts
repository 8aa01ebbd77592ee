import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { output, parentOf, run } from './tools.ts';

/** Code name of the Debian release that images are made of. */
export const suite = 'bookworm';

/** A package of Debian. It is unpacked in a folder of its own, so that the package of each file is known. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly folder: string;
}

/**
 * Downloads and unpacks packages of Debian for arm64, with all their dependencies. It uses an apt with its own state; from
 * the machine's apt it takes only the mirror and the keys. Packages are cached.
 * @throws {Error} when the machine's apt does not list Debian bookworm, or apt fails
 */
export function debianPackages(wanted: readonly string[]): DebianPackage[] {
  const key = wanted.join(' ');
  const found = asked.get(key) ?? askDebian(wanted);
  asked.set(key, found);
  return found;
}

/** Results in this process. All images that one process builds get the same versions of packages. */
const asked = new Map<string, DebianPackage[]>();

/**
 * Downloads the source of a package, by the same apt. Returns the path of its description (`.dsc`), whose name has the
 * version. The files of the source are in the same folder.
 * @throws {Error} when Debian has no such source, or apt fails
 */
export function debianSource(name: string): string {
  const flags = ownApt('deb-src');
  const folder = join(output, 'cache/source');
  mkdirSync(folder, { recursive: true });
  aptGet([...flags, 'update', '-qq']);
  const listed = aptGet([...flags, 'source', '-qq', '--print-uris', name]);
  const description = /^'\S+' (\S+\.dsc) /m.exec(listed)?.[1];
  if (description === undefined) throw new Error(`Debian ${suite} has no source of ${name}`);
  // apt does not download files again that are in the folder already.
  aptGet([...flags, 'source', '-qq', '--download-only', name], folder);
  return join(folder, description);
}

/** Arguments for apt-get by which it works for arm64, in folders of the recipe, with sources of this kind. */
function ownApt(kind: 'deb' | 'deb-src'): string[] {
  const apt = join(output, 'cache', kind === 'deb' ? 'apt' : 'apt-source');
  for (const folder of ['etc/preferences.d', 'state/lists/partial', 'cache/archives/partial'])
    mkdirSync(join(apt, folder), { recursive: true });
  writeFileSync(join(apt, 'status'), '');
  writeFileSync(join(apt, 'sources.list'), `${mirrors(kind).join('\n')}\n`);
  const options = {
    'APT::Architecture': 'arm64',
    'APT::Architectures': 'arm64',
    'APT::Install-Recommends': 'false',
    'APT::Sandbox::User': 'root',
    'Dir::Etc': join(apt, 'etc'),
    'Dir::Etc::SourceList': join(apt, 'sources.list'),
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::State': join(apt, 'state'),
    'Dir::State::status': join(apt, 'status'),
    'Dir::Cache': join(apt, 'cache'),
    'Acquire::Languages': 'none',
  };
  return Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
}

function askDebian(wanted: readonly string[]): DebianPackage[] {
  const flags = ownApt('deb');
  aptGet([...flags, 'update', '-qq']);
  aptGet([...flags, 'install', '-y', '-qq', '--download-only', ...wanted]);
  // The folder may also have older archives, from earlier runs. The simulated installation tells the versions to use.
  const listed = aptGet([...flags, 'install', '-s', '-qq', ...wanted]);
  const archives = join(output, 'cache/apt/cache/archives');
  const files = readdirSync(archives);
  return [...listed.matchAll(/^Inst (\S+) \((\S+) /gm)].map(([, name = '', version = '']) => {
    const file = files.find((one) => one.startsWith(`${name}_${version.replaceAll(':', '%3a')}_`));
    if (!file) throw new Error(`${name} ${version} was not downloaded`);
    const folder = join(output, 'cache/packages', file.slice(0, -'.deb'.length));
    if (!existsSync(folder)) unpack(join(archives, file), folder);
    return { name, version, folder };
  });
}

/** Runs apt-get under a lock. When two images are built at the same time, apt itself would fail instead of waiting. */
const aptGet = (args: readonly string[], cwd = output): string =>
  run('flock', [join(output, 'cache/apt.lock'), 'apt-get', ...args], { cwd });

/** Unpacks an archive to a folder that is either complete or absent, even if another process unpacks the same one. */
function unpack(archive: string, folder: string): void {
  const part = `${folder}.${process.pid}`;
  run('dpkg-deb', ['-x', archive, parentOf(part)]);
  try {
    renameSync(part, folder);
  } catch (thrown) {
    rmSync(part, { recursive: true });
    if (!existsSync(folder)) throw thrown;
  }
}

/**
 * Lines of a sources.list with the mirrors from which this machine has Debian's packages.
 * @throws {Error} when it has none
 */
function mirrors(kind: 'deb' | 'deb-src'): string[] {
  const format = '$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(COMPONENT)';
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  const lines = run('apt-get', ['indextargets', 'Created-By: Packages', '--format', format])
    .trim()
    .split('\n');
  const found = new Set<string>();
  for (const line of lines) {
    const [origin, codename = '', uri = '', component] = line.split('|');
    // Firmware of boards, such as the Raspberry Pi's, is in the component non-free-firmware.
    if (origin === 'Debian' && codename.startsWith(suite) && component === 'main')
      found.add(`${kind} [signed-by=${keyring}] ${uri} ${codename} main non-free-firmware`);
  }
  if (found.size === 0)
    throw new Error(
      `the image is made of Debian ${suite}, but apt on this machine does not list it: build on Debian ${suite}, or add it to the sources of apt`,
    );
  return [...found];
}
