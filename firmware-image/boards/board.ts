/** What one kind of gateway board needs besides what all have. */
export interface Board {
  /** In file names, and in `compatible` of bundles: an update for another board is refused. */
  readonly name: string;
  readonly description: string;
  /** Packages of Debian with its boot loader and firmware. */
  readonly packages: readonly string[];
  readonly console: string;
  /** Name of the disk that Linux sees, without a partition. */
  readonly modules: { readonly initramfs: readonly string[]; readonly root: readonly string[] };
  /** Device trees of the kernel that the FIT carries; none where the boot loader has it from the board. */
  readonly deviceTrees: readonly string[];
  /** How U-Boot calls the disk: `virtio 0`, `mmc 0`. */
  readonly disk: { readonly interface: string; readonly number: number };
  /** Where U-Boot loads the FIT, and what the kernel is unpacked to: hexadecimal. */
  readonly addresses: { readonly fit: string; readonly kernel: string; readonly state: string };
}

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
