import type { Board } from '../boards/board.ts';
import { imx8mMini } from '../boards/imx8m-mini.ts';
import { qemu } from '../boards/qemu.ts';
import { raspberryPi4 } from '../boards/raspberry-pi-4.ts';
import { packagesOfParts } from './parts.ts';
import { rootPackages } from './root-file-system.ts';

/** The boards for which there are images, by the name that `--board` takes. */
export const boards: Readonly<Record<string, Board>> = {
  qemu,
  'raspberry-pi-4': raspberryPi4,
  'imx8m-mini': imx8mMini,
};

/** Packages of Debian that the image of every board needs. base-files has the texts of common licences. */
export const commonPackages = [...rootPackages, 'dmsetup', 'linux-image-arm64', 'base-files'] as const;

/** Every package of Debian that an image of any board may need. The lock has them with what they depend on. */
export const lockedPackages: readonly string[] = [
  ...new Set([
    ...commonPackages,
    ...Object.values(boards).flatMap((board) => [...board.packages, ...packagesOfParts(board)]),
  ]),
];

/** Source packages that are built here, besides those of the packages. */
export const lockedSources: readonly string[] = ['rauc', 'u-boot'];

/** Packages against which RAUC is built, without what they depend on. The lock has them under the name `sysroot`. */
export const sysrootPackages: readonly string[] = [
  ...['libc6', 'libc6-dev', 'linux-libc-dev', 'libglib2.0-0', 'libglib2.0-dev'],
  ...['libssl3', 'libssl-dev', 'libjson-glib-1.0-0', 'libjson-glib-dev'],
];
