/** What one kind of gateway board needs besides what all have. */
export interface Board {
  /** In file names, and in `compatible` of bundles: an update for another board is refused. */
  readonly name: string;
  readonly description: string;
  /** Packages of Debian with its boot loader and firmware. */
  readonly packages: readonly string[];
  readonly console: string;
  /** More for the kernel's command line. */
  readonly kernelArguments: readonly string[];
  /** Modules of the kernel, each with its arguments: to reach the root, and for what is needed after that. */
  readonly modules: { readonly initramfs: readonly string[]; readonly root: readonly string[] };
  /** Device trees of the kernel that the FIT carries; none where the boot loader has it from the board. */
  readonly deviceTrees: readonly string[];
  /** How U-Boot calls the disk: `virtio 0`, `mmc 0`. */
  readonly disk: { readonly interface: string; readonly number: number };
  /** Files for the partition CONFIG, where the board's own first stage looks for them. */
  readonly firmware?: (from: BoardFiles) => Readonly<Record<string, string>>;
  /** Where on the disk the board's first stage looks for a boot loader that Debian does not have. */
  readonly bootLoaderAt?: number;
  /** Where U-Boot loads the FIT, and what the kernel is unpacked to: hexadecimal. */
  readonly addresses: { readonly fit: string; readonly kernel: string; readonly state: string };
}

/** Where a board's firmware comes from. */
export interface BoardFiles {
  /** A file of one of the board's packages. */
  readonly find: (path: string) => string;
  /** U-Boot that checks signatures, for one of its own configurations. */
  readonly uBoot: (configuration: string) => string;
  /** A device tree of the kernel with the public key and the boot script put into it. */
  readonly trustedTree: (name: string) => string;
  /** A file with this text. */
  readonly text: (name: string, content: string) => string;
}

/**
 * For processors that Meltdown does not reach, such as Cortex-A53 and A72: the kernel would keep its pages out of programs' sight
 * all the same, to hide at which address it lies, and make each call of it dearer. [Linux, cpufeature.c, kaslr_requires_kpti]
 */
export const withoutMeltdown = 'kpti=off';

/** Every board reads its root through these, and firewall and watchdog need those. */
export const commonModules = {
  initramfs: [
    'sha256-arm64',
    'sha2-ce',
    'squashfs',
    'dax',
    'dm-mod',
    'dm-bufio',
    'reed_solomon',
    'dm-verity',
  ],
  root: [
    'crc32c_generic',
    'ext4',
    'loop',
    'nls_ascii',
    'nls_cp437',
    'vfat',
    'nf_tables',
    'nft_ct',
    'nft_reject_inet',
  ],
} as const;
