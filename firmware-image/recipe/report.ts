import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { PickedFile } from './closure.ts';
import type { NpmComponent } from './licences.ts';
import { cpeOf, type NodePart } from './node-parts.ts';
import type { BilledLicence } from './spdx.ts';

/** What one package contributes to the image. */
export interface PackageWeight {
  readonly name: string;
  readonly version: string;
  /** Bytes of its files, unpacked. */
  readonly bytes: number;
  /** Number of its files. */
  readonly files: number;
}

/**
 * Sums up the files of each package, the largest package first.
 * @param versions versions of all packages, by name
 */
export function weighPackages(
  files: readonly PickedFile[],
  versions: ReadonlyMap<string, string>,
): PackageWeight[] {
  const sums = new Map<string, { bytes: number; files: number }>();
  for (const file of files) {
    const sum = sums.get(file.package) ?? { bytes: 0, files: 0 };
    sums.set(file.package, { bytes: sum.bytes + statSync(file.from).size, files: sum.files + 1 });
  }
  return [...sums]
    .map(([name, sum]) => ({ name, version: versions.get(name) ?? '', ...sum }))
    .toSorted((a, b) => b.bytes - a.bytes);
}

/** A package of Debian in the image. */
export interface BilledPackage {
  readonly name: string;
  readonly version: string;
  readonly licences: readonly BilledLicence[];
  /** Name and version of its source, and of the sources of which it has parts. */
  readonly sources: readonly string[];
  /** Whether the recipe builds it from Debian's source. */
  readonly isBuiltHere?: boolean;
}

/** What the bill of an image is made of. */
export interface BillParts {
  readonly name: string;
  readonly version: string;
  /** In seconds since 1970. */
  readonly date: number;
  /** All files: of the root, and of kernel and initramfs with a first folder `boot`. */
  readonly files: readonly PickedFile[];
  readonly packages: readonly BilledPackage[];
  readonly node: { readonly name: string; readonly version: string; readonly parts: readonly NodePart[] };
  readonly npm: readonly NpmComponent[];
}

/**
 * The software bill of materials as JSON (CycloneDX 1.6): every package that has a file in the image with its licences, its source
 * and the SHA-256 of its files, the packages of npm in the gateway, and the parts of Node.
 */
export function softwareBill({ name, version, date, files, packages, node, npm }: BillParts): string {
  const filesOf = (owner: string) =>
    files
      .filter((file) => file.package === owner)
      .map(({ from, to }) => ({
        type: 'file',
        name: to,
        hashes: [{ alg: 'SHA-256', content: createHash('sha256').update(readFileSync(from)).digest('hex') }],
      }))
      .toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const [kernelVersion] =
    packages.find(({ name: one }) => one.startsWith('linux-image'))?.version.split('-') ?? [];
  const debian = packages.map((one) => ({
    type: one.name.startsWith('linux-image') ? 'operating-system' : 'library',
    name: one.name,
    version: one.version,
    licenses: one.licences,
    ...(one.name.startsWith('linux-image') && {
      cpe: `cpe:2.3:o:linux:linux_kernel:${kernelVersion}:*:*:*:*:*:*:*`,
    }),
    purl: `pkg:deb/debian/${one.name}@${encodeURIComponent(one.version)}?arch=${one.isBuiltHere ? 'source' : 'arm64'}`,
    properties: one.sources.map((source) => ({ name: 'postern:source', value: source })),
    components: filesOf(one.name),
  }));
  const own = {
    type: 'application',
    name: 'postern',
    version,
    licenses: [{ license: { id: 'Apache-2.0' } }],
    components: [...npm.map((one) => ({ type: 'library', ...one })), ...filesOf('postern')],
  };
  const ofNode = {
    type: 'platform',
    name: 'node',
    version: node.version,
    licenses: [{ license: { id: 'MIT' } }],
    cpe: cpeOf('nodejs:node.js', node.version),
    purl: `pkg:npm/${node.name}@${node.version}`,
    components: [
      ...node.parts.map(({ licences, ...part }) => ({ type: 'library', ...part, licenses: licences })),
      ...filesOf(node.name),
    ],
  };
  const bill = {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: {
      timestamp: new Date(date * 1000).toISOString(),
      component: { type: 'firmware', name, version },
    },
    components: [...debian, ofNode, own].toSorted((a, b) => (a.name < b.name ? -1 : 1)),
  };
  return `${JSON.stringify(bill, null, 1)}\n`;
}
