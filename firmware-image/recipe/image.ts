import { copyFileSync, existsSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Board, BoardFiles } from '../boards/board.ts';
import { type BootImageParts, bootFiles, makeFit, makeInitramfs, recoveryName } from './boot-image.ts';
import { builtUBoot } from './boot-loader.ts';
import { makeBundle } from './bundle.ts';
import { PackageFiles } from './closure.ts';
import { debianPackages, usualStore } from './debian.ts';
import { trustedTreeSource } from './device-tree.ts';
import { bytesOf, makeDisk, trustSource } from './disk.ts';
import { type Inventory, takeStock } from './inventory.ts';
import { kernelOf } from './kernel.ts';
import { type SigningKeys, trustFiles } from './keys.ts';
import { licenceArchive, packLicences } from './licences.ts';
import { arm64Node } from './node.ts';
import { type PartName, partsOf } from './parts.ts';
import { builtRauc } from './rauc.ts';
import { makeRecovery } from './recovery.ts';
import { makeRoot, packRoot } from './root-file-system.ts';
import { fresh, nodeVersion, output, root, run, sourceDate, step } from './tools.ts';
import { commonPackages } from './wanted.ts';

/** What `buildImage` is to build. */
export interface ImageOrder {
  readonly board: Board;
  readonly version: string;
  /** Name of the output folder, and in file names. Default: the name of the board. */
  readonly name?: string;
  readonly keys: SigningKeys;
  /** Adds a shell on the console. */
  readonly isDeveloperImage: boolean;
  /** File with the gateway's program for the snapshot. Default: `dist/postern-snapshot.cjs`. */
  readonly program?: string;
  /** Lowest version that is still booted, once this image has proved healthy. */
  readonly floor?: string;
  /** File with the board's own boot loader, for boards whose boot loader is not in Debian. */
  readonly bootLoader?: string;
  /** Optional parts. */
  readonly with?: readonly PartName[];
  /** Compression level of zstd for the root, 1 to 22. Default: 19. */
  readonly level?: number;
  /** Whether a disk image is made, and not only the bundle. */
  readonly withDisk: boolean;
}

/**
 * The kind of board that an image is for, in `compatible` of bundles. Boards for production refuse bundles that were made with keys
 * for development or with a shell, and the other way round.
 */
export const boardKind = ({
  board,
  keys,
  isDeveloperImage,
}: Pick<ImageOrder, 'board' | 'keys' | 'isDeveloperImage'>): string =>
  keys.areForDevelopment || isDeveloperImage ? `${board.name}-development` : board.name;

/** Paths of what was built. */
export interface BuiltImage {
  /** The output folder. */
  readonly folder: string;
  readonly disk: string | undefined;
  readonly bundle: string;
  readonly fit: string;
  /** The FIT of the recovery system, where there is a disk. */
  readonly recovery: string | undefined;
  /** The root with its hash tree. */
  readonly rootImage: string;
  /** Source of the device tree that the boot loader trusts: the public key and the boot script. */
  readonly trust: string;
  readonly inventory: Inventory;
  /** The board's firmware on the partition CONFIG: path on this machine, by name on CONFIG. */
  readonly firmware: Readonly<Record<string, string>>;
}

/**
 * Builds the update bundle of one board, and on request its disk image. Returns the paths of the files.
 * @throws {Error} when a step fails
 */
export async function buildImage(order: ImageOrder): Promise<BuiltImage> {
  const { board, version, keys, level = 19 } = order;
  const name = order.name ?? board.name;
  const folder = fresh(join(output, name));
  const date = sourceDate();
  const optional = partsOf(board, order.with ?? []);
  const packages = await step('packages of Debian for arm64', () =>
    debianPackages([
      ...[...commonPackages, ...board.packages],
      ...[...optional.values()].flatMap((part) => part.packages),
    ]),
  );
  const node = await step(`Node ${nodeVersion()} for arm64`, () => arm64Node(nodeVersion()));
  const rauc = await step('RAUC for arm64', () => builtRauc());
  const files = new PackageFiles(packages);
  const kernel = kernelOf(packages);
  const program = order.program ?? join(root, 'dist/postern-snapshot.cjs');
  if (!existsSync(program)) throw new Error(`${program} does not exist; run npm run build`);

  const tree = join(folder, 'root');
  const kind = boardKind(order);
  const parts = {
    board,
    kind,
    files,
    kernelModules: kernel.modules,
    kernelVersion: kernel.version,
    node,
    rauc: rauc.program,
    program,
    version,
    floor: order.floor,
    date,
    trust: trustFiles(keys.folder),
    isDeveloperImage: order.isDeveloperImage,
    optional,
  };
  const inventory = await step('root', () => {
    const picked = makeRoot(tree, parts);
    const { lock } = usualStore();
    const stock = { board, version, date, lock, packages, files, kernel, node, rauc };
    const taken = takeStock({ ...stock, root: picked, boot: bootFiles(board, files, kernel) });
    for (const file of [join(tree, 'usr/share/postern/sbom.json'), join(folder, 'sbom.json')])
      writeFileSync(file, taken.bill);
    packLicences(taken.texts, join(folder, 'licences'), join(tree, licenceArchive), date);
    return taken;
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
      kind,
      version,
      description: keys.areForDevelopment ? 'DEVELOPMENT KEYS' : 'Postern',
      fit,
      root: rootImage,
      date,
      keys,
    }),
  );
  let disk: string | undefined;
  let recovery: string | undefined;
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
    const recoveryFolder = join(folder, 'recovery');
    const made = await step('recovery system', () =>
      makeFit(recoveryFolder, makeRecovery(recoveryFolder, tree, rauc.program, boot), boot, recoveryName),
    );
    recovery = made;
    await step('disk', () =>
      makeDisk(file, { fit, recovery: made, root: rootImage, date, firmware, bootLoader }),
    );
  }
  run('rm', ['-rf', tree, join(folder, 'bundle')]);
  return { folder, disk, bundle, fit, recovery, rootImage, trust, inventory, firmware };
}

function boardFiles(folder: string, files: PackageFiles, deviceTrees: string, trust: string): BoardFiles {
  return {
    find: (path) => {
      // Later steps change the file's time stamp, so they get a copy and not the file of the unpacked package.
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

/** A number of bytes as text in MB, aligned. */
export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1).padStart(6)} MB`;

/** A report with the sizes of what was built and of each package in it, as lines of text. */
export function describeImage({
  disk,
  bundle,
  rootImage,
  fit,
  recovery,
  inventory,
  firmware,
}: BuiltImage): string {
  return [
    `${megabytes(bytesOf(bundle))}  update bundle`,
    `${megabytes(bytesOf(rootImage))}  root, with its hash tree`,
    `${megabytes(bytesOf(fit))}  kernel and initramfs (FIT)`,
    ...(recovery === undefined ? [] : [`${megabytes(bytesOf(recovery))}  recovery system (FIT)`]),
    ...(disk === undefined ? [] : [`${megabytes(bytesOf(disk))}  disk`]),
    ...inventory.weights.map(
      ({ name, version, bytes, files }) => `${megabytes(bytes)}    ${name} ${version}, ${files} files`,
    ),
    ...Object.entries(firmware).map(([name, file]) => `${megabytes(bytesOf(file))}    ${name}, on CONFIG`),
  ].join('\n');
}
