import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Board } from '../boards/board.ts';
import { UsageError } from './command.ts';

/** Names of the parts that an image may have besides what every image has (`--with`). */
export const partNames = ['wifi', 'cellular'] as const;
export type PartName = (typeof partNames)[number];

/** What a part adds to an image. */
export interface ImagePart {
  /** Debian packages. */
  readonly packages: readonly string[];
  /** Programs and libraries, by their paths in a package. The libraries that they need come with them. */
  readonly programs: readonly string[];
  /** Folders of libraries that a program loads by itself, by their paths in a package. */
  readonly plugins: readonly string[];
  /** Other files: path in the image, by path in a package. */
  readonly files: Readonly<Record<string, string>>;
  /** Kernel modules. They are loaded only where the configuration has such an interface. */
  readonly modules: readonly string[];
}

/** Drivers of USB modems of all kinds that ModemManager knows: QMI, MBIM, and serial ports for AT commands. */
const modemModules = ['qmi_wwan', 'cdc_mbim', 'cdc_ether', 'option', 'qcserial', 'cdc-acm'];

/**
 * The parts of an image for a board.
 * @throws {UsageError} when the board has no such part
 */
export function partsOf(board: Board, names: readonly PartName[]): ReadonlyMap<PartName, ImagePart> {
  return new Map(
    names.map((name) => {
      const own = board.parts?.[name];
      if (!own) throw new UsageError(`--with ${name}: the recipe knows no ${name} of ${board.description}`);
      return [name, { ...common[name], ...joined(common[name], own) }];
    }),
  );
}

/** What is the same on all boards. */
const common: Readonly<Record<PartName, ImagePart>> = {
  wifi: {
    packages: ['wpasupplicant', 'wireless-regdb'],
    programs: ['sbin/wpa_supplicant'],
    plugins: [],
    files: {
      'lib/firmware/regulatory.db-upstream': 'lib/firmware/regulatory.db',
      'lib/firmware/regulatory.db.p7s-upstream': 'lib/firmware/regulatory.db.p7s',
    },
    // wpa_supplicant has the rest of the ciphers itself.
    modules: ['ccm', 'cmac', 'gcm'],
  },
  cellular: {
    packages: ['modemmanager', 'polkitd', 'dbus-daemon'],
    programs: ['usr/bin/dbus-daemon', 'usr/sbin/ModemManager', 'usr/bin/mmcli', 'usr/lib/polkit-1/polkitd'],
    plugins: ['usr/lib/aarch64-linux-gnu/ModemManager'],
    files: {
      'usr/share/polkit-1/actions/org.freedesktop.ModemManager1.policy':
        'usr/share/polkit-1/actions/org.freedesktop.ModemManager1.policy',
    },
    modules: modemModules,
  },
};

const joined = (part: ImagePart, own: NonNullable<NonNullable<Board['parts']>[PartName]>) => ({
  packages: [...part.packages, ...(own.packages ?? [])],
  files: { ...part.files, ...own.files },
  modules: [...own.modules, ...part.modules],
});

/** Packages of all parts that a board can have. */
export const packagesOfParts = (board: Board): string[] => {
  const names = partNames.filter((name) => board.parts?.[name]);
  return [...partsOf(board, names).values()].flatMap(({ packages }) => packages);
};

/** The files in the folders of plugins of a part, by their paths in a package. `found` finds a folder. */
export const pluginsOf = ({ plugins }: ImagePart, found: (path: string) => string): string[] =>
  plugins.flatMap((folder) =>
    readdirSync(found(folder))
      .filter((name) => name.endsWith('.so'))
      .map((name) => join(folder, name)),
  );

/**
 * The parts that a list such as `wifi,cellular` names.
 * @throws {UsageError} when there is no such part
 */
export function namedParts(list: string | undefined): PartName[] {
  const names = list === undefined || list === '' ? [] : [...new Set(list.split(','))];
  return names.map((name) => {
    const known = partNames.find((one) => one === name);
    if (!known) throw new UsageError(`--with ${name}: there are ${partNames.join(', ')}`);
    return known;
  });
}
