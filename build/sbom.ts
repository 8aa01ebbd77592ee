// The bill of materials of a bundle: CycloneDX 1.6, made from what esbuild says is in it.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

/** A package of npm whose code is in a bundle. */
export interface BundledPackage {
  readonly name: string;
  readonly version: string;
  /** Identifier or expression of SPDX. */
  readonly licence: string;
}

/**
 * The packages whose code is in an output of esbuild, sorted by name.
 * @param inputs the member `inputs` of the output in the metafile: bytes by path of the source
 * @param root folder of the paths, with a slash at its end
 * @throws when a package has no name, version or licence, because nobody could say what is shipped
 */
export function packagesIn(
  inputs: Readonly<Record<string, { readonly bytesInOutput: number }>>,
  root: string,
): BundledPackage[] {
  const found = new Map<string, BundledPackage>();
  for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
    const [, folder] = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path) ?? [];
    if (folder === undefined || bytesInOutput === 0) continue;
    const { name, version, license } = JSON.parse(readFileSync(`${root}${folder}/package.json`, 'utf8'));
    const licence = typeof license === 'string' ? license : license?.type;
    if (!name || !version || !licence)
      throw new Error(`${folder}/package.json has no name, version or licence`);
    found.set(`${name}@${version}`, { name, version, licence });
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** The package URL of a package of npm (purl-spec). */
export const purlOf = ({ name, version }: BundledPackage): string =>
  `pkg:npm/${name.split('/').map(encodeURIComponent).join('/')}@${encodeURIComponent(version)}`;

/** An expression of SPDX has operators, an identifier has none. */
const licencesOf = (licence: string): object[] =>
  / (AND|OR|WITH) /.test(licence)
    ? [{ expression: licence.replace(/^\((.*)\)$/, '$1') }]
    : [{ license: { id: licence } }];

export interface Bundle {
  readonly file: string;
  readonly version: string;
  readonly code: Uint8Array | string;
  readonly packages: readonly BundledPackage[];
}

/** The document. It has no time and no serial number, so that it is the same for the same bundle. */
export function sbomOf({ file, version, code, packages }: Bundle) {
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      component: {
        type: 'application',
        'bom-ref': file,
        name: file,
        version,
        licenses: licencesOf('Apache-2.0'),
        hashes: [{ alg: 'SHA-256', content: createHash('sha256').update(code).digest('hex') }],
      },
    },
    components: packages.map((one) => ({
      type: 'library',
      'bom-ref': purlOf(one),
      name: one.name,
      version: one.version,
      licenses: licencesOf(one.licence),
      purl: purlOf(one),
    })),
    dependencies: [
      { ref: file, dependsOn: packages.map(purlOf) },
      ...packages.map((one) => ({ ref: purlOf(one) })),
    ],
  };
}
