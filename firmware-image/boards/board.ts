/** What differs from board to board. */
export interface Board {
  /** Used in file names and in `compatible` of bundles. RAUC refuses an update whose `compatible` names another board. */
  readonly name: string;
  readonly description: string;
  /** Names of the Debian packages with the board's boot loader and firmware. */
  readonly packages: readonly string[];
  /** Serial console as on the kernel's command line, such as `ttyS1,115200`. */
  readonly console: string;
  /** Further arguments for the kernel's command line. */
  readonly kernelArguments: readonly string[];
  /**
   * Kernel modules, each with its arguments. Those of `initramfs` are needed to read the root, those of `root` are loaded
   * after that.
   */
  readonly modules: { readonly initramfs: readonly string[]; readonly root: readonly string[] };
  /** What optional parts of an image need on this board (`--with`). A board without an entry does not have the part. */
  readonly parts?: Readonly<Partial<Record<'wifi' | 'cellular', BoardPart>>>;
  /** Device trees of the kernel that go into the FIT. Empty where the kernel gets the boot loader's device tree. */
  readonly deviceTrees: readonly string[];
  /** The disk as U-Boot names it: `virtio 0`, `mmc 0`. */
  readonly disk: { readonly interface: string; readonly number: number };
  /**
   * Returns the files that the board's first boot stage reads from the partition CONFIG: path on this machine, by name on
   * CONFIG.
   */
  readonly firmware?: (from: BoardFiles) => Readonly<Record<string, string>>;
  /** Offset in bytes where the first boot stage reads the boot loader from the disk, if Debian does not have this loader. */
  readonly bootLoaderAt?: number;
  /**
   * A counter of the board that only goes up, for the floor: `docs/firmware.md` says which boards have one. Without it the floor is
   * in the boot state alone.
   */
  readonly floorCounter?: FloorCounter;
  /**
   * Command of U-Boot that succeeds while the button for a factory reset is held, such as `gpio input 17`. Without it a file on
   * CONFIG orders the reset.
   */
  readonly resetButton?: string;
  /** Load addresses, in hexadecimal: of the FIT, of the unpacked kernel, and of the boot state while U-Boot reads it. */
  readonly addresses: { readonly fit: string; readonly kernel: string; readonly state: string };
}

/** How a counter is reached that holds the floor as a number (`versionNumber` in boot-state.ts). */
export interface FloorCounter {
  /**
   * Commands of U-Boot that read the counter into memory, as 32 bits, little-endian. They fail when it cannot be read. They may
   * select another device than the disk.
   * @param address address in memory, in hexadecimal
   */
  readonly uBoot: (address: string) => string;
  /**
   * A program for the board's Linux, as text: `get` prints the number. `raise NUMBER` raises the counter to it, does nothing when
   * it is as high already, and fails when it cannot.
   */
  readonly program: string;
  /** Kernel modules that the program needs. */
  readonly modules: readonly string[];
}

/** What an optional part needs on a board. */
export interface BoardPart {
  /** Kernel modules: drivers of the radio, or of the bus that a modem is on. */
  readonly modules: readonly string[];
  /** Debian packages with firmware. */
  readonly packages?: readonly string[];
  /** Files of firmware: path in the image, by path in a package. */
  readonly files?: Readonly<Record<string, string>>;
}

/** Makes the firmware files of a board. Each function returns the path of a file. */
export interface BoardFiles {
  /** A file of one of the board's packages, by its path in the package. */
  readonly find: (path: string) => string;
  /** U-Boot that checks signatures, built for one of U-Boot's own configurations. */
  readonly uBoot: (configuration: string) => string;
  /** A device tree of the kernel to which the public key and the boot script were added. */
  readonly trustedTree: (name: string) => string;
  /** A file with this text. */
  readonly text: (name: string, content: string) => string;
}

/**
 * Kernel argument for processors without the Meltdown vulnerability, such as Cortex-A53 and A72. Without it the kernel
 * would still isolate its page tables, in order to hide its random address, and each system call would cost more.
 * [Linux, cpufeature.c, kaslr_requires_kpti]
 */
export const withoutMeltdown = 'kpti=off';

/** Modules of every board: `initramfs` to read the root; `root` for other file systems, loop devices and the firewall. */
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
