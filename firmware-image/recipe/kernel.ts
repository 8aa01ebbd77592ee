import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { DebianPackage } from './debian.ts';

/** Debian's kernel, where it was unpacked. */
export interface Kernel {
  /** Of Debian's package. */
  readonly packageVersion: string;
  /** As the kernel calls itself. */
  readonly version: string;
  readonly image: string;
  /** Folders. */
  readonly modules: string;
  readonly deviceTrees: string;
}

/** The kernel among packages that `linux-image-arm64` brought. */
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
