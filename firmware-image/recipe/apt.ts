import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Mirrors } from './archive.ts';
import { recordsIn } from './deb822.ts';
import { output, run } from './tools.ts';

/** Code name of the Debian release that images are made of. */
export const suite = 'bookworm';

/** A mirror of one of Debian's archives, as the machine's apt has it. */
interface Mirror {
  readonly uri: string;
  /** Such as `bookworm-security`. */
  readonly codename: string;
}

/**
 * The mirrors from which this machine has Debian's packages.
 * @throws {Error} when it has none
 */
function mirrors(): Mirror[] {
  const format = '$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(COMPONENT)';
  const lines = run('apt-get', ['indextargets', 'Created-By: Packages', '--format', format])
    .trim()
    .split('\n');
  const found = new Map<string, Mirror>();
  for (const line of lines) {
    const [origin, codename = '', uri = '', component] = line.split('|');
    if (origin === 'Debian' && codename.startsWith(suite) && component === 'main')
      found.set(`${uri} ${codename}`, { uri, codename });
  }
  if (found.size === 0)
    throw new Error(
      `the image is made of Debian ${suite}, but apt on this machine does not list it: build on Debian ${suite}, or add it to the sources of apt`,
    );
  return [...found.values()];
}

/** The same mirrors by archive. */
export function mirrorsHere(): Mirrors {
  const isSecurity = ({ codename }: Mirror) => codename.endsWith('-security');
  const uris = (list: readonly Mirror[]) => [...new Set(list.map(({ uri }) => uri))];
  const all = mirrors();
  return {
    debian: uris(all.filter((one) => !isSecurity(one))),
    'debian-security': uris(all.filter(isSecurity)),
  };
}

/** An apt for arm64 with a state of its own. From the machine's apt it takes only the mirrors and the keys. */
export class OwnApt {
  readonly #flags: readonly string[];

  /** Reads the lists of packages anew. */
  constructor() {
    const apt = join(output, 'cache/apt');
    for (const folder of ['etc/preferences.d', 'state/lists/partial', 'cache/archives/partial'])
      mkdirSync(join(apt, folder), { recursive: true });
    writeFileSync(join(apt, 'status'), '');
    const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
    // Firmware of boards, such as the Raspberry Pi's, is in the component non-free-firmware.
    const lines = ['deb', 'deb-src'].flatMap((kind) =>
      mirrors().map(
        ({ uri, codename }) => `${kind} [signed-by=${keyring}] ${uri} ${codename} main non-free-firmware`,
      ),
    );
    writeFileSync(join(apt, 'sources.list'), `${lines.join('\n')}\n`);
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
    this.#flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
    this.#run('apt-get', 'update', '-qq');
  }

  /** Name and version of each package that the installation of a package would install, itself included. */
  installs(name: string): { name: string; version: string }[] {
    const said = this.#run('apt-get', 'install', '-s', '-qq', name);
    return [...said.matchAll(/^Inst (\S+) \((\S+) /gm)].map(([, one = '', version = '']) => ({
      name: one,
      version,
    }));
  }

  /** The records of packages in given versions: fields by name. */
  packages(wanted: readonly { name: string; version: string }[]): Readonly<Record<string, string>>[] {
    return recordsIn(
      this.#run('apt-cache', 'show', ...wanted.map(({ name, version }) => `${name}=${version}`)),
    );
  }

  /** The records of all versions of source packages that the mirrors have. */
  sources(names: readonly string[]): Readonly<Record<string, string>>[] {
    return recordsIn(this.#run('apt-cache', 'showsrc', '--only-source', ...names));
  }

  /** Under a lock: of two at the same time apt itself would fail one instead of letting it wait. */
  #run(program: string, ...args: readonly string[]): string {
    return run('flock', [join(output, 'cache/apt.lock'), program, ...this.#flags, ...args], { cwd: output });
  }
}
