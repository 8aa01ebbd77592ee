import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import { debianSource } from './debian.ts';
import { fresh, output, root, run } from './tools.ts';

/** Settings of U-Boot that are added to, or replace, those of the board's configuration. */
const settings: Readonly<Record<string, string>> = {
  // Debian's binaries for real boards cannot boot a FIT.
  CONFIG_FIT: 'y',
  CONFIG_FIT_SIGNATURE: 'y',
  CONFIG_RSA: 'y',
  // Images without a signature are not booted.
  CONFIG_LEGACY_IMAGE_FORMAT: 'n',
  // The boot script comes from U-Boot's device tree only, not from a file on the disk and not from the console.
  CONFIG_ENV_IS_IN_FAT: 'n',
  CONFIG_ENV_IS_NOWHERE: 'y',
  CONFIG_USE_PREBOOT: 'n',
  CONFIG_BOOTDELAY: '-2',
  // This tool is not used here and would need another library.
  CONFIG_TOOLS_MKEFICAPSULE: 'n',
};

/**
 * Builds U-Boot from Debian's source, for boards for which Debian has no U-Boot that checks signatures. Returns the path of
 * `u-boot.bin`. The result is cached for each version, configuration and set of settings.
 * @param configuration name of one of U-Boot's own configurations, without `_defconfig`
 * @throws {Error} when the configuration does not accept one of the settings, or the build fails
 */
export function builtUBoot(configuration: string): string {
  const source = debianSource('u-boot');
  const wanted = Object.entries(settings).map(([name, value]) => `${name}=${value}\n`);
  const digest = createHash('sha256').update(wanted.join('')).digest('hex').slice(0, 12);
  const made = join(output, 'cache/u-boot', `${basename(source, '.dsc')}-${configuration}-${digest}.bin`);
  if (existsSync(made)) return made;
  const prepare = [join(root, 'build/prepare.mjs'), '--boot-loader'];
  execFileSync(process.execPath, prepare, { stdio: 'inherit' });
  const folder = join(fresh(join(output, 'cache/u-boot/build')), 'source');
  run('dpkg-source', ['-x', source, folder]);
  writeFileSync(join(folder, 'postern.config'), wanted.join(''));
  const env = {
    CROSS_COMPILE: 'aarch64-linux-gnu-',
    SOURCE_DATE_EPOCH: run('dpkg-parsechangelog', ['-STimestamp'], { cwd: folder }).trim(),
  };
  const make = (...targets: string[]) =>
    run('make', ['-s', `-j${availableParallelism()}`, ...targets], { cwd: folder, env });
  make(`${configuration}_defconfig`);
  run('scripts/kconfig/merge_config.sh', ['-m', '.config', 'postern.config'], { cwd: folder, env });
  make('olddefconfig');
  const taken = readFileSync(join(folder, '.config'), 'utf8');
  for (const [name, value] of Object.entries(settings))
    if (value === 'n' ? taken.includes(`${name}=y`) : !taken.includes(`${name}=${value}\n`))
      throw new Error(`the configuration ${configuration} of U-Boot does not accept ${name}=${value}`);
  make('u-boot.bin');
  run('mv', [join(folder, 'u-boot.bin'), made]);
  run('rm', ['-rf', join(folder, '..')]);
  return made;
}
