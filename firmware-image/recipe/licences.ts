import { copyFileSync, existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { purlOf } from '../../build/sbom.ts';
import type { DebianPackage } from './debian.ts';
import { type BilledLicence, licencesIn } from './spdx.ts';
import { fresh, parentOf, root, run } from './tools.ts';

/** Path of the archive with the texts of all licences, in the image. It belongs to root, and nobody else reads it. */
export const licenceArchive = 'usr/share/postern/licences.tar.xz';

/** A package of npm in the gateway's program, as `npm run build` lists it. */
export interface NpmComponent {
  readonly name: string;
  readonly version: string;
  readonly licenses: readonly BilledLicence[];
  readonly purl: string;
}

/**
 * The packages of npm in the gateway's program.
 * @throws {Error} when the program was not built
 */
export function npmComponents(file = join(root, 'dist/postern.cdx.json')): NpmComponent[] {
  if (!existsSync(file)) throw new Error(`${file} does not exist; run npm run build`);
  const { components } = JSON.parse(readFileSync(file, 'utf8')) as { components: NpmComponent[] };
  return components.map(({ name, version, licenses }) => ({
    ...{ name, version, licenses },
    purl: purlOf({ name, version, licence: '' }),
  }));
}

/**
 * The file with the copyright and the licences of a package of Debian.
 * @throws {Error} when it has none
 */
export function copyrightOf(name: string, packages: readonly DebianPackage[]): string {
  const of = (one: string) => packages.find((other) => other.name === one)?.folder ?? '';
  // A package may have a link to the folder of another one that is built from the same source.
  const folder = join(of(name), 'usr/share/doc', name);
  const isLink = lstatSync(folder, { throwIfNoEntry: false })?.isSymbolicLink();
  const other = isLink ? basename(readlinkSync(folder)) : name;
  const file = join(of(other), 'usr/share/doc', other, 'copyright');
  if (!existsSync(file)) throw new Error(`the package ${name} has no copyright file`);
  return file;
}

/** Licences of a copyright file of Debian for the bill. */
export const billedLicences = (name: string, copyright: string): BilledLicence[] =>
  licencesIn(readFileSync(copyright, 'utf8')) ?? [
    { license: { name: `see debian/${name} in ${basename(licenceArchive)}` } },
  ];

/** The texts of licences, by their path in the archive: file on this machine. */
export type LicenceTexts = Readonly<Record<string, string>>;

/** The texts that Debian's copyright files refer to. */
export function commonLicences(packages: readonly DebianPackage[]): LicenceTexts {
  const { folder } = packages.find(({ name }) => name === 'base-files')!;
  const common = join(folder, 'usr/share/common-licenses');
  return Object.fromEntries(
    readdirSync(common)
      .filter((name) => lstatSync(join(common, name)).isFile())
      .map((name) => [`common-licenses/${name}`, join(common, name)]),
  );
}

/**
 * The texts of packages of npm, and of the gateway.
 * @throws {Error} when a package has no text
 */
export function npmLicences(components: readonly NpmComponent[]): LicenceTexts {
  const own = components.map(({ name }) => {
    const folder = join(root, 'node_modules', name);
    const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
    // A few packages have their licence in the readme alone.
    const found = file ?? readdirSync(folder).find((one) => /^readme/i.test(one));
    if (found === undefined) throw new Error(`node_modules/${name} has no licence`);
    return [`npm/${name}/${found}`, join(folder, found)] as const;
  });
  return { ...Object.fromEntries(own), 'postern/LICENSE': join(root, 'LICENSE') };
}

/**
 * Packs texts into one archive, as small as it can be: a third of what the root would need for the single files. The same texts give
 * the same bytes.
 * @param workshop folder for temporary files; it is emptied first
 * @param file path of the archive
 * @param date time stamp of all files, in seconds since 1970
 */
export function packLicences(texts: LicenceTexts, workshop: string, file: string, date: number): void {
  fresh(workshop);
  for (const [path, from] of Object.entries(texts)) copyFileSync(from, parentOf(join(workshop, path)));
  const tar = `${workshop}.tar`;
  const same = ['--sort=name', '--format=ustar', '--owner=0', '--group=0', '--numeric-owner'];
  run('tar', ['-c', '-f', tar, ...same, '--mode=u=rwX,go=rX', `--mtime=@${date}`, '-C', workshop, '.']);
  run('xz', ['-9', '-e', '-T1', '-f', tar]);
  run('mv', [`${tar}.xz`, parentOf(file)]);
  run('chmod', ['400', file]);
  run('rm', ['-rf', workshop]);
}
