import type { Board } from '../boards/board.ts';
import type { PackageFiles, PickedFile } from './closure.ts';
import type { DebianPackage } from './debian.ts';
import type { Kernel } from './kernel.ts';
import {
  billedLicences,
  commonLicences,
  copyrightOf,
  type LicenceTexts,
  npmComponents,
  npmLicences,
} from './licences.ts';
import type { Lock } from './lock.ts';
import { type ArmNode, nodePackage } from './node.ts';
import { nodeParts } from './node-parts.ts';
import type { BuiltRauc } from './rauc.ts';
import { type BilledPackage, type PackageWeight, softwareBill, weighPackages } from './report.ts';

/** Everything in an image that others have made. */
export interface InventoryParts {
  readonly board: Board;
  readonly version: string;
  /** In seconds since 1970. */
  readonly date: number;
  readonly lock: Lock;
  readonly packages: readonly DebianPackage[];
  readonly files: PackageFiles;
  readonly kernel: Kernel;
  readonly node: ArmNode;
  readonly rauc: BuiltRauc;
  /** Files of the root. */
  readonly root: readonly PickedFile[];
  /** Files of kernel and initramfs. */
  readonly boot: readonly PickedFile[];
}

/** What an image says of itself. */
export interface Inventory {
  /** The bill of materials, CycloneDX as JSON. */
  readonly bill: string;
  readonly texts: LicenceTexts;
  readonly weights: readonly PackageWeight[];
  /** The sources of Debian, each with name and version. */
  readonly sources: readonly string[];
}

/**
 * Takes stock of an image.
 * @throws {Error} when the licence of a package is not to be found
 */
export function takeStock(parts: InventoryParts): Inventory {
  const { board, version, date, lock, packages, kernel, node, rauc, root, boot } = parts;
  const files = [...root, ...boot.map((file) => ({ ...file, to: `boot/${file.to}` }))];
  const npm = npmComponents();
  // The firmware of a board is on CONFIG, whole packages of it.
  const names = new Set([...files.map((file) => file.package), ...board.packages]);
  const copyrights = new Map<string, string>();
  const billed: BilledPackage[] = [];
  for (const { name, version: of } of packages.filter((one) => names.has(one.name))) {
    const copyright = copyrightOf(name, packages);
    copyrights.set(name, copyright);
    const locked = lock.packages.find((one) => one.name === name);
    billed.push({
      ...{ name, version: name === 'linux-image-arm64' ? kernel.packageVersion : of },
      licences: billedLicences(name, copyright),
      sources: locked ? [locked.source, ...(locked.builtUsing ?? [])] : [],
    });
  }
  copyrights.set('rauc', rauc.copyright);
  billed.push({
    ...{ name: 'rauc', version: rauc.version, isBuiltHere: true },
    licences: billedLicences('rauc', rauc.copyright),
    sources: [`rauc ${rauc.version}`],
  });
  const versions = new Map([
    ...billed.map((one) => [one.name, one.version] as const),
    ['postern', version],
    [nodePackage, node.version],
  ]);
  return {
    bill: softwareBill({
      ...{ name: `postern-${board.name}`, version, date, files, packages: billed, npm },
      node: { name: nodePackage, version: node.version, parts: nodeParts(process.versions) },
    }),
    texts: {
      ...Object.fromEntries([...copyrights].map(([name, file]) => [`debian/${name}`, file])),
      ...commonLicences(packages),
      ...npmLicences(npm),
      'node/LICENSE': node.licence,
    },
    weights: weighPackages(root, versions),
    sources: [...new Set(billed.flatMap(({ sources }) => sources))].toSorted(),
  };
}
