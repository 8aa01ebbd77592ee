import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { rootCertificates } from 'node:tls';
import type { Board } from '../boards/board.ts';
import { moduleClosure, type PackageFiles, type PickedFile } from './closure.ts';
import { confiningLauncher } from './confinement.ts';
import type { TrustFiles } from './keys.ts';
import { licenceArchive } from './licences.ts';
import { type ArmNode, nodePackage } from './node.ts';
import { type ImagePart, type PartName, pluginsOf } from './parts.ts';
import { makeSnapshot } from './snapshot.ts';
import { fresh, parentOf, root, run } from './tools.ts';

/** Programs of the root, by their path in a package. */
const programs = [
  'bin/busybox',
  'usr/bin/openssl',
  'usr/sbin/nft',
  'usr/sbin/chronyd',
  'sbin/mke2fs',
  'sbin/e2fsck',
  'sbin/sfdisk',
];

/** Debian packages that the root needs. */
export const rootPackages = [
  'busybox-static',
  'openssl',
  'nftables',
  'chrony',
  'e2fsprogs',
  'fdisk',
  'libstdc++6',
  'libatomic1',
  'libgcc-s1',
  // Of RAUC, which is built here.
  'libglib2.0-0',
  'libjson-glib-1.0-0',
  'libssl3',
];

/** What the root is made of. */
export interface RootParts {
  readonly board: Board;
  /** Kind of board, `boardKind`. A bundle for another kind is refused. */
  readonly kind: string;
  readonly files: PackageFiles;
  /** Folder. */
  readonly kernelModules: string;
  readonly kernelVersion: string;
  readonly node: ArmNode;
  /** RAUC for arm64. */
  readonly rauc: PickedFile;
  /** File with the gateway's program, for the snapshot. */
  readonly program: string;
  readonly version: string;
  /** Lowest version that is still booted, once this image has proved healthy. */
  readonly floor: string | undefined;
  /** Date of the build, in seconds since 1970. The clock of a board is never behind it. */
  readonly date: number;
  /** Who must certify the signers of updates. */
  readonly trust: TrustFiles;
  /** What this image has besides what every image has. */
  readonly optional: ReadonlyMap<PartName, ImagePart>;
  /** Adds a shell on the console. */
  readonly isDeveloperImage: boolean;
}

/** Applets of busybox that get a link in /usr/bin. */
const applets = ['sh', 'init', 'mount', 'umount', 'udhcpc', 'reboot', 'getty'] as const;

/**
 * Makes the tree of the read-only root. Returns its files that come from packages, the kernel modules and the snapshot.
 * @param folder folder for the tree; it is emptied first
 */
export function makeRoot(folder: string, parts: RootParts): PickedFile[] {
  const { board, files, node, program, rauc } = parts;
  fresh(folder);
  const own: PickedFile = { from: node.program, to: 'usr/lib/node/node', package: nodePackage };
  const optional = [...parts.optional.values()];
  const more = optional.flatMap((part) => [
    ...part.programs,
    ...pluginsOf(part, (path) => files.find(path).from),
  ]);
  const other = optional.flatMap((part) =>
    Object.entries(part.files).map(([path, to]): PickedFile => ({ ...files.find(path), to })),
  );
  const picked = [...files.programs([...programs, ...more], [own, rauc]), ...other];
  for (const { from, to } of picked) install(from, join(folder, canonical(to)));
  for (const [link, target] of Object.entries({ bin: 'usr/bin', sbin: 'usr/sbin', lib: 'usr/lib' }))
    symlinkSync(target, join(folder, link));
  for (const applet of applets) symlinkSync('busybox', join(folder, 'usr/bin', applet));
  symlinkSync('../bin/busybox', join(folder, 'usr/sbin/init'));
  for (const empty of ['dev', 'proc', 'sys', 'run', 'tmp', 'data', 'config', 'etc', 'root'])
    mkdirSync(join(folder, empty), { recursive: true });
  mkdirSync(join(folder, 'var'));
  for (const name of ['lib', 'lock', 'log']) symlinkSync(`../run/${name}`, join(folder, 'var', name));
  symlinkSync('../run', join(folder, 'var/run'));
  for (const kept of ['resolv.conf', 'machine-id', 'hostname'])
    symlinkSync(`../run/${kept}`, join(folder, 'etc', kept));

  const overlay = join(root, 'firmware-image/rootfs');
  cpSync(overlay, folder, { recursive: true });
  run('sh', ['-c', `chmod 755 ${folder}/usr/bin/node ${folder}/usr/bin/postern ${folder}/usr/lib/postern/*`]);
  writeFileSync(join(folder, 'usr/lib/postern/confine'), confiningLauncher(), { mode: 0o755 });
  const counter = board.floorCounter;
  if (counter) writeFileSync(join(folder, 'usr/lib/postern/floor-counter'), counter.program, { mode: 0o755 });
  const snapshot = join(folder, 'usr/lib/postern/postern.snapshot');
  makeSnapshot(folder, program, snapshot);
  const modules = moduleClosure(parts.kernelModules, board.modules.root);
  for (const { file } of modules) install(file, join(folder, 'usr/lib/modules', basename(file)), 0o644);
  const write = (path: string, text: string) => writeFileSync(parentOf(join(folder, path)), text);
  write('usr/lib/modules/order', `${modules.map(({ line }) => line).join('\n')}\n`);
  // Loaded only where the configuration has such an interface.
  const onDemand = new Map<string, readonly string[]>([
    ['vlan', ['8021q']],
    ...[...parts.optional].map(([name, part]) => [name, part.modules] as const),
  ]);
  const rare = [...onDemand].flatMap(([name, wanted]) => {
    const closure = moduleClosure(parts.kernelModules, wanted);
    for (const { file } of closure) install(file, join(folder, 'usr/lib/modules', basename(file)), 0o644);
    write(`usr/lib/modules/order.${name}`, closure.map(({ line }) => `${line}\n`).join(''));
    return closure;
  });
  // Those of Node, for time servers with NTS.
  write('usr/share/postern/authorities.pem', `${rootCertificates.toSorted().join('\n')}\n`);
  const { authority, old, second, list } = parts.trust;
  write('etc/rauc/keyring.pem', authority);
  if (old) write('etc/rauc/old-keyring.pem', old.certificate);
  if (second !== undefined) write('etc/rauc/second-keyring.pem', second);
  if (list !== undefined) write('etc/rauc/revoked.pem', list);
  write(
    'etc/rauc/system.conf',
    readFileSync(join(overlay, 'etc/rauc/system.conf'), 'utf8').replaceAll('@board@', parts.kind),
  );
  write(
    'etc/postern-release',
    `version=${parts.version}\nwith=${[...parts.optional.keys()].join(',')}\nboard=${parts.kind}\nkernel=${parts.kernelVersion}\nfloor=${parts.floor ?? ''}\ndate=${parts.date}\n${old ? `old-until=${old.until}\n` : ''}`,
  );
  if (parts.optional.has('cellular')) symlinkSync('dbus-daemon', join(folder, 'usr/bin/modem-bus'));
  const shell = parts.isDeveloperImage
    ? `${board.console}::respawn:/bin/getty -n -l /bin/sh 115200 ${board.console}\n`
    : '';
  write('etc/inittab', readFileSync(join(overlay, 'etc/inittab'), 'utf8') + shell);
  const module: PickedFile[] = [...new Set([...modules, ...rare].map(({ file }) => file))].map((from) => ({
    from,
    to: basename(from),
    package: 'linux-image-arm64',
  }));
  return [
    ...picked,
    ...module,
    { from: snapshot, to: 'usr/lib/postern/postern.snapshot', package: 'postern' },
  ];
}

/** Path of a file in the image, where /bin, /sbin and /lib are links into /usr. */
export const canonical = (path: string): string => (/^(bin|sbin|lib)\//.test(path) ? `usr/${path}` : path);

function install(from: string, to: string, mode = 0o755): void {
  copyFileSync(from, parentOf(to));
  chmodSync(to, mode);
}

/** A packed root with its hash tree of dm-verity. */
export interface VerityRoot {
  /** File. */
  readonly image: string;
  /** SHA-256 in hexadecimal. */
  readonly rootHash: string;
  /** Number of blocks of 4096 bytes with data. The hash tree follows them. */
  readonly dataBlocks: number;
}

/**
 * Files that change from one version of the gateway to the next. They come last in the squashfs. Packed files have no gaps between
 * them, so all that follows a changed file moves, and is new to a board that downloads an update by blocks.
 */
const changing = [
  'etc/postern-release',
  'usr/share/postern/sbom.json',
  // It has the date of the build in it.
  licenceArchive,
  'usr/lib/postern/postern.snapshot',
];

/**
 * Packs a tree as squashfs and appends the hash tree of dm-verity. The same tree gives the same bytes.
 * @param folder the tree
 * @param image path of the result
 * @param date time stamp of all files, in seconds since 1970
 * @param level compression level of zstd, 1 to 22
 */
export function packRoot(folder: string, image: string, date: number, level: number): VerityRoot {
  run('rm', ['-f', image]);
  const times = { SOURCE_DATE_EPOCH: String(date) };
  const order = `${image}.order`;
  writeFileSync(order, changing.map((file) => `${file} -1\n`).join(''));
  run(
    'mksquashfs',
    [
      folder,
      image,
      '-comp',
      'zstd',
      '-Xcompression-level',
      String(level),
      '-b',
      // Larger blocks pack better. Smaller ones cost less memory and time, since programs are read in scattered pages and
      // each block is unpacked as a whole.
      '64K',
      '-all-root',
      '-no-xattrs',
      '-no-exports',
      '-sort',
      order,
      '-no-progress',
      '-quiet',
    ],
    { env: times },
  );
  const size = Number(run('stat', ['-c', '%s', image]));
  const dataBlocks = Math.ceil(size / 4096);
  run('truncate', ['-s', String(dataBlocks * 4096), image]);
  const said = run('veritysetup', [
    'format',
    image,
    image,
    '--no-superblock',
    `--data-blocks=${dataBlocks}`,
    `--hash-offset=${dataBlocks * 4096}`,
    '--salt=-',
  ]);
  const rootHash = /Root hash:\s+([0-9a-f]{64})/.exec(said)?.[1];
  if (rootHash === undefined) throw new Error(`veritysetup printed no root hash: ${said}`);
  return { image, rootHash, dataBlocks };
}
