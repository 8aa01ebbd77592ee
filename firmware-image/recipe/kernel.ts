import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DebianPackage } from './debian.ts';

/** Debian's kernel, unpacked. */
export interface Kernel {
  /** Version of Debian's package. */
  readonly packageVersion: string;
  /** Version as the kernel itself reports it. */
  readonly version: string;
  /** File. */
  readonly image: string;
  /** Folder. */
  readonly modules: string;
  /** Folder. */
  readonly deviceTrees: string;
}

/** Finds the kernel among `linux-image-arm64` and its dependencies. */
export function kernelOf(packages: readonly DebianPackage[]): Kernel {
  const { folder, version: packageVersion } = packages.find(({ name }) => /^linux-image-\d/.test(name))!;
  const [version = ''] = readdirSync(join(folder, 'lib/modules'));
  return {
    packageVersion,
    version,
    image: join(folder, `boot/vmlinuz-${version}`),
    modules: join(folder, 'lib/modules', version),
    deviceTrees: join(folder, 'usr/lib', `linux-image-${version}`),
  };
}
