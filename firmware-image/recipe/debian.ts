import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { output, parentOf, run } from './tools.ts';

export const suite = 'bookworm';

/** A package of Debian, unpacked in a folder of its own, so that each file is known by its package. */
export interface DebianPackage {
  readonly name: string;
  readonly version: string;
  readonly folder: string;
}

/**
 * Packages of Debian for arm64 with all that they depend on, got by an apt of its own: the machine's is asked for its mirror
 * and keys alone. What was got once is kept.
 */
export function debianPackages(wanted: readonly string[]): DebianPackage[] {
  const key = wanted.join(' ');
  const found = asked.get(key) ?? askDebian(wanted);
  asked.set(key, found);
  return found;
}

/** Answers of this process: images that are built in one go are of the same packages. */
const asked = new Map<string, DebianPackage[]>();

/**
 * The source of a package, got as the packages are. Answers with its description, the `.dsc`, which has the version in its name;
 * what it describes lies beside it.
 */
export function debianSource(name: string): string {
  const flags = ownApt('deb-src');
  const folder = join(output, 'cache/source');
  mkdirSync(folder, { recursive: true });
  aptGet([...flags, 'update', '-qq']);
  const listed = aptGet([...flags, 'source', '-qq', '--print-uris', name]);
  const description = /^'\S+' (\S+\.dsc) /m.exec(listed)?.[1];
  if (description === undefined) throw new Error(`Debian ${suite} has no source of ${name}`);
  // What is there already is not got again.
  aptGet([...flags, 'source', '-qq', '--download-only', name], folder);
  return join(folder, description);
}

/** Arguments for an apt of the recipe's own, for arm64, with this kind of lines in its list of sources. */
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
  // What is in the archives from earlier days may be older: the list of what would be installed says which count.
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

/** Two images may be built at once: the one waits for the other, where apt would give up. */
const aptGet = (args: readonly string[], cwd = output): string =>
  run('flock', [join(output, 'cache/apt.lock'), 'apt-get', ...args], { cwd });

/** All of a package is there, or nothing, whoever unpacks it besides. */
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

/** Lines of a sources.list: where the machine itself has Debian's packages from. */
function mirrors(kind: 'deb' | 'deb-src'): string[] {
  const format = '$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(COMPONENT)';
  const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
  const lines = run('apt-get', ['indextargets', 'Created-By: Packages', '--format', format])
    .trim()
    .split('\n');
  const found = new Set<string>();
  for (const line of lines) {
    const [origin, codename = '', uri = '', component] = line.split('|');
    // Firmware of boards, such as that of the Raspberry Pi, is in a part of its own.
    if (origin === 'Debian' && codename.startsWith(suite) && component === 'main')
      found.add(`${kind} [signed-by=${keyring}] ${uri} ${codename} main non-free-firmware`);
  }
  if (found.size === 0)
    throw new Error(
      `the image is made of Debian ${suite}, which this machine's apt does not list: build on Debian ${suite}, or add it to its sources`,
    );
  return [...found];
}
