import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import type { PickedFile } from './closure.ts';
import { debianPackages, debianSource } from './debian.ts';
import { fresh, output, parentOf, run } from './tools.ts';

/**
 * What is left out of RAUC. It checks a bundle that the gateway has downloaded, and writes slots. It needs no network of its own,
 * and no service on D-Bus: curl, Kerberos, LDAP, D-Bus and systemd's library stay away, 24 libraries in all.
 */
const leftOut = ['service', 'network', 'streaming', 'create', 'gpt', 'maintainer-mode'];
/** Debian's own flags for programs that read what others have made. */
const [compiler, linker] = [
  '-Os -g0 -fPIE -fstack-protector-strong -D_FORTIFY_SOURCE=2 -Wformat -Werror=format-security',
  '-pie -s -Wl,-z,relro,-z,now,--build-id=none,--as-needed,--unresolved-symbols=ignore-in-shared-libs',
];

/** RAUC for arm64. */
export interface BuiltRauc {
  readonly program: PickedFile;
  /** Version of Debian's source. */
  readonly version: string;
  /** File with its copyright and licence. */
  readonly copyright: string;
}

/**
 * Builds RAUC for arm64 from Debian's source in the version of the lock, against Debian's own libraries. Returns its files.
 * They are cached for each source and for each change of this file. The same source gives the same bytes.
 * @throws {Error} when the build fails
 */
export function builtRauc(): BuiltRauc {
  const source = debianSource('rauc');
  const rules = createHash('sha256').update(readFileSync(import.meta.filename));
  const packages = debianPackages(['sysroot']);
  for (const { name, version } of packages) rules.update(`${name} ${version}\n`);
  const digest = rules.digest('hex').slice(0, 12);
  const made = join(output, 'cache/rauc', `${basename(source, '.dsc')}-${digest}`);
  if (!existsSync(made))
    build(
      source,
      packages.map(({ folder }) => folder),
      made,
    );
  return {
    program: { from: made, to: 'usr/bin/rauc', package: 'rauc' },
    version: basename(source, '.dsc').replace('rauc_', ''),
    copyright: `${made}.copyright`,
  };
}

function build(source: string, packages: readonly string[], made: string): void {
  const workshop = fresh(`${made}.${process.pid}`);
  const [sysroot, folder] = [join(workshop, 'sysroot'), join(workshop, 'source')];
  run('mkdir', [sysroot]);
  for (const one of packages) run('cp', ['-a', `${one}/.`, sysroot]);
  run('dpkg-source', ['--no-check', '-x', source, folder]);
  // One of Debian's patches is newer than what was made of the file that it changes. Nothing has to be made again.
  run('find', [folder, '-exec', 'touch', '-d', '@0', '{}', '+']);
  const [headers, libraries] = [join(sysroot, 'usr/include'), join(sysroot, 'usr/lib/aarch64-linux-gnu')];
  const names = `-ffile-prefix-map=${folder}=. -ffile-prefix-map=${sysroot}=`;
  const env = {
    CC: `aarch64-linux-gnu-gcc --sysroot=${sysroot}`,
    CFLAGS: `${compiler} ${names}`,
    LDFLAGS: linker,
    // What pkg-config would say, which would want further packages.
    GLIB_CFLAGS: `-I${headers}/glib-2.0 -I${headers}/gio-unix-2.0 -I${libraries}/glib-2.0/include`,
    GLIB_LIBS: '-lgio-2.0 -lgobject-2.0 -lglib-2.0',
    JSON_GLIB_CFLAGS: `-I${headers}/json-glib-1.0`,
    JSON_GLIB_LIBS: '-ljson-glib-1.0',
    ...{ OPENSSL_INCLUDES: ' ', OPENSSL_LIBS: '-lcrypto', OPENSSL_LDFLAGS: ' ' },
  };
  const folders = ['systemdunit', 'dbuspolicy', 'dbussystemservice', 'dbusinterfaces'].map(
    (name) => `--with-${name}dir=/none`,
  );
  const without = leftOut.map((name) => `--disable-${name}`);
  run('./configure', ['--quiet', '--host=aarch64-linux-gnu', ...without, ...folders], { cwd: folder, env });
  run('make', ['-s', `-j${availableParallelism()}`, 'rauc'], { cwd: folder, env });
  run('mv', [join(folder, 'debian/copyright'), parentOf(`${made}.copyright`)]);
  run('mv', [join(folder, 'rauc'), parentOf(made)]);
  run('rm', ['-rf', workshop]);
}
