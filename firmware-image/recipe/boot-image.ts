import { X509Certificate } from 'node:crypto';
import { chmodSync, copyFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Board } from '../boards/board.ts';
import { moduleClosure, type PackageFiles, type PickedFile } from './closure.ts';
import { checkedVersion } from './command.ts';
import { treeSource } from './device-tree.ts';
import type { Kernel } from './kernel.ts';
import type { SigningKeys } from './keys.ts';
import type { VerityRoot } from './root-file-system.ts';
import { fresh, output, parentOf, root, run } from './tools.ts';

/** Names of the configurations in the FIT of a slot and in that of the recovery system, each followed by `-1`, `-2` and so on. */
export const configurationName = 'conf';
export const recoveryName = 'recovery';

/** What initramfs and FIT are made of. */
export interface BootImageParts {
  readonly board: Board;
  readonly files: PackageFiles;
  /** File. */
  readonly kernelImage: string;
  /** Folder. */
  readonly kernelModules: string;
  /** Folder. */
  readonly deviceTrees: string;
  readonly verity: VerityRoot;
  readonly version: string;
  /** Time stamp of all files, in seconds since 1970. */
  readonly date: number;
  readonly keys: SigningKeys;
}

/** Programs of the initramfs, by their path in a package. */
const initramfsPrograms = ['bin/busybox', 'sbin/dmsetup'];

/** The files of packages that are in the FIT: kernel, device trees, and those of the initramfs with a first folder `initramfs`. */
export function bootFiles(
  board: Board,
  files: PackageFiles,
  { image, modules, deviceTrees }: Pick<Kernel, 'image' | 'modules' | 'deviceTrees'>,
): PickedFile[] {
  const ofKernel = (from: string, to: string): PickedFile => ({ from, to, package: 'linux-image-arm64' });
  return [
    ofKernel(image, basename(image)),
    ...board.deviceTrees.map((name) => ofKernel(join(deviceTrees, name), basename(name))),
    ...files.programs(initramfsPrograms).map((file) => ({ ...file, to: `initramfs/${file.to}` })),
    ...moduleClosure(modules, board.modules.initramfs).map(({ file }) =>
      ofKernel(file, `initramfs/modules/${basename(file)}`),
    ),
  ];
}

/**
 * Makes the initramfs, which runs before the root is mounted: a shell, dmsetup, the modules that read the disk, and the
 * root hash. Returns the path of the packed file. The same parts give the same bytes.
 * @param folder folder for the result and temporary files; it is emptied first
 */
export function makeInitramfs(folder: string, parts: BootImageParts): string {
  const { board, files, verity } = parts;
  fresh(folder);
  const tree = join(folder, 'initramfs');
  for (const { from, to } of files.programs(initramfsPrograms))
    install(from, join(tree, to.replace(/^usr\//, '')));
  installModules(tree, parts.kernelModules, board.modules.initramfs);
  install(join(root, 'firmware-image/initramfs/init'), join(tree, 'init'));
  writeFileSync(join(tree, 'verity'), `hash=${verity.rootHash}\nblocks=${verity.dataBlocks}\n`);
  return packInitramfs(tree, ['dev', 'proc', 'sys', 'root', 'run']);
}

/** Copies a file into an image. */
export function install(from: string, to: string, mode = 0o755): void {
  copyFileSync(from, parentOf(to));
  chmodSync(to, mode);
}

/** Copies kernel modules, with those that they need, into an initramfs. */
export function installModules(tree: string, kernelModules: string, wanted: readonly string[]): void {
  const modules = moduleClosure(kernelModules, wanted);
  for (const { file } of modules) install(file, join(tree, 'modules', basename(file)), 0o644);
  writeFileSync(join(tree, 'modules/order'), `${modules.map(({ line }) => line).join('\n')}\n`);
}

/**
 * Packs a tree as an initramfs, beside it. Returns the path of the file. The same tree gives the same bytes, on any day: another
 * time stamp would change all that is packed, for updates by blocks. Nothing reads the times of these files.
 * @param empty folders that the tree gets
 */
export function packInitramfs(tree: string, empty: readonly string[]): string {
  run('mkdir', ['-p', ...empty.map((one) => join(tree, one))]);
  // Links to folders are not followed.
  const names = run('find', ['.', '-mindepth', '1', '-printf', '%P\\n'], { cwd: tree }).trim().split('\n');
  names.push('.');
  names.sort();
  for (const name of names) run('touch', ['-h', '-d', '@0', join(tree, name)]);
  const file = `${tree}.cpio`;
  run('sh', ['-c', `cpio --quiet --reproducible -o -H newc -R 0:0 > ${file}`], {
    cwd: tree,
    input: `${names.join('\n')}\n`,
  });
  run('zstd', ['-q', '-19', '--rm', '-f', file]);
  return `${file}.zst`;
}

/**
 * Packs the kernel by gzip, which every U-Boot unpacks. libdeflate makes it smaller than the program gzip does. Returns the path. The
 * result is cached for each kernel.
 */
function packedKernel(kernelImage: string): string {
  const file = join(output, 'cache', `${basename(kernelImage)}.gz`);
  if (existsSync(file) && statSync(file).mtimeMs >= statSync(kernelImage).mtimeMs) return file;
  // Two builds at once do not write into one file.
  const part = `${file}.${process.pid}.part`;
  // On its standard input it gets neither name nor time of the file, so the result depends on its bytes alone.
  run('sh', ['-c', `libdeflate-gzip -12 -c < '${kernelImage}' > '${part}'`]);
  run('mv', [part, file]);
  return file;
}

/**
 * The public key of a certificate as a node of the boot loader's device tree: what mkimage writes for the key that it signs with.
 * No private key is needed.
 * @throws {Error} for a key that is not RSA of 2048 bits
 */
export function bootKeyNode(certificate: string, name: string): string {
  const { kty, n = '', e = '' } = new X509Certificate(certificate).publicKey.export({ format: 'jwk' });
  const bits = 2048;
  const number = (text: string) => BigInt(`0x${Buffer.from(text, 'base64url').toString('hex') || '0'}`);
  const [modulus, exponent] = [number(n), number(e)];
  if (kty !== 'RSA' || modulus.toString(2).length !== bits)
    throw new Error(`the boot key ${name} must be RSA with ${bits} bits`);
  const word = 1n << 32n;
  // The inverse of an odd number modulo 2^32: each step doubles the bits that are right.
  let inverse = 1n;
  for (let step = 0; step < 5; step++) inverse = (inverse * (2n - modulus * inverse)) % word;
  const words = (value: bigint, count: number) =>
    `<${(
      value
        .toString(16)
        .padStart(8 * count, '0')
        .match(/.{8}/g) ?? []
    )
      .map((one) => `0x${one}`)
      .join(' ')}>`;
  return `
    key-${name} {
      required = "conf";
      algo = "sha256,rsa2048";
      key-name-hint = "${name}";
      rsa,num-bits = <${bits}>;
      rsa,modulus = ${words(modulus, bits / 32)};
      rsa,exponent = ${words(exponent, 2)};
      rsa,r-squared = ${words((1n << BigInt(2 * bits)) % modulus, bits / 32)};
      rsa,n0-inverse = ${words((((word - inverse) % word) + word) % word, 1)};
    };`;
}

/** Adds a second public key to a device tree: an image by any of the two keys is booted. */
function trustOther(trust: string, certificate: string): void {
  const other = bootKeyNode(certificate, 'other-boot');
  const source = `${treeSource(trust)}\n/ { signature { required-mode = "any";${other} }; };\n`;
  run('dtc', ['-q', '-I', 'dts', '-O', 'dtb', '-o', trust, '-'], { input: source });
}

/**
 * Makes the FIT, one signed file with kernel, initramfs and, for boards that need them, device trees. Returns its path.
 * Also writes `trust.dtb`, a device tree with the public key, and with that of `other-boot.crt` if the keys have it.
 * @param folder folder for the results
 * @param initramfs file
 * @param name of its configurations. The signature covers it, so an image of a slot is not started as the recovery system
 */
export function makeFit(
  folder: string,
  initramfs: string,
  parts: Omit<BootImageParts, 'verity' | 'files' | 'kernelModules'>,
  name = configurationName,
): string {
  const { board, kernelImage, version, date, keys } = parts;
  // Little-endian, as the boot script reads it from memory.
  const number = Buffer.alloc(4);
  number.writeUInt32LE(checkedVersion('version', version));
  const kernel = packedKernel(kernelImage);
  const source = join(folder, 'postern.its');
  const file = join(folder, 'boot.fit');
  const hash = 'hash-1 { algo = "sha256"; };';
  const trees = board.deviceTrees.map((name, index) => ({
    node: `fdt-${index + 1}`,
    file: join(parts.deviceTrees, name),
  }));
  const configuration = (node: string, tree: string | undefined) => `
    ${node} {
      description = "Postern ${version} on ${board.name}";
      postern,version = [${number.toString('hex')}];
      kernel = "kernel-1";
      ramdisk = "ramdisk-1";${tree === undefined ? '' : `\n      fdt = "${tree}";`}
      signature-1 {
        algo = "sha256,rsa2048";
        key-name-hint = "boot";
        sign-images = "kernel", "ramdisk"${tree === undefined ? '' : ', "fdt"'};
      };
    };`;
  writeFileSync(
    source,
    `/dts-v1/;
/ {
  description = "Postern ${version}";
  #address-cells = <1>;
  images {
    kernel-1 {
      data = /incbin/("${kernel}");
      type = "kernel";
      arch = "arm64";
      os = "linux";
      compression = "gzip";
      load = <${board.addresses.kernel}>;
      entry = <${board.addresses.kernel}>;
      ${hash}
    };
    ramdisk-1 {
      data = /incbin/("${initramfs}");
      type = "ramdisk";
      arch = "arm64";
      os = "linux";
      compression = "none";
      ${hash}
    };${trees
      .map(
        ({ node, file: tree }) => `
    ${node} {
      data = /incbin/("${tree}");
      type = "flat_dt";
      arch = "arm64";
      compression = "none";
      ${hash}
    };`,
      )
      .join('')}
  };
  configurations {
    default = "${name}-1";${(trees.length > 0 ? trees : [undefined]).map((tree, index) => configuration(`${name}-${index + 1}`, tree?.node)).join('')}
  };
};
`,
  );
  const times = { SOURCE_DATE_EPOCH: String(date) };
  // U-Boot looks for the public key in its own device tree, so mkimage writes it into a device tree.
  const trust = join(folder, 'trust.dtb');
  run('dtc', ['-q', '-I', 'dts', '-O', 'dtb', '-o', trust, '-'], { input: '/dts-v1/; / { };' });
  run('mkimage', ['-f', source, file], { env: times });
  run('mkimage', ['-F', '-k', keys.folder, '-K', trust, '-r', file], { env: times });
  const other = join(keys.folder, 'other-boot.crt');
  if (existsSync(other)) trustOther(trust, readFileSync(other, 'utf8'));
  // In a bundle, the root follows the FIT. The blocks of both then begin at the same positions modulo 4096 (block-index.ts).
  run('truncate', ['-s', '%4096', file]);
  return file;
}
