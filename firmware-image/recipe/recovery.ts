import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { type BootImageParts, install, installModules, packInitramfs } from './boot-image.ts';
import type { PickedFile } from './closure.ts';
import { canonical } from './root-file-system.ts';
import { fresh, root } from './tools.ts';

/**
 * Programs of the recovery system besides RAUC, by their path in a package. It brings its own copies: no slot can be read when it is
 * needed. openssl checks revocation lists and second signatures. wget of busybox gets HTTPS from it; its own TLS lacks today's
 * ciphers.
 */
const programs = ['bin/busybox', 'usr/bin/openssl'];
/** What the recovery system has from the root of the slots, so that both read the state and judge a bundle alike. */
const shared = [
  'etc/rauc',
  'etc/passwd',
  'etc/group',
  'etc/hosts',
  'etc/nsswitch.conf',
  'etc/postern-release',
  ...['common', 'boot-state', 'bundle-checks', 'trust', 'second-copy', 'time-floor', 'network', 'routes'].map(
    (name) => `usr/lib/postern/${name}`,
  ),
];

/**
 * Makes the initramfs of the recovery system, which is all that runs there. Returns the path of the packed file. The same parts
 * give the same bytes.
 * @param folder folder for the result; it is emptied first
 * @param tree the root of the slots, not packed
 * @param rauc RAUC for arm64
 */
export function makeRecovery(
  folder: string,
  tree: string,
  rauc: PickedFile,
  { board, files, kernelModules }: Pick<BootImageParts, 'board' | 'files' | 'kernelModules'>,
): string {
  fresh(folder);
  const made = join(folder, 'recovery');
  mkdirSync(made);
  for (const { from, to } of files.programs(programs, [rauc])) install(from, join(made, canonical(to)));
  for (const [link, target] of Object.entries({ bin: 'usr/bin', sbin: 'usr/bin', lib: 'usr/lib' }))
    symlinkSync(target, join(made, link));
  symlinkSync('busybox', join(made, 'usr/bin/sh'));
  for (const path of shared) cpSync(join(tree, path), join(made, path), { recursive: true });
  symlinkSync('../run/resolv.conf', join(made, 'etc/resolv.conf'));
  const counter = 'usr/lib/postern/floor-counter';
  if (board.floorCounter) cpSync(join(tree, counter), join(made, counter));
  const own = join(root, 'firmware-image/recovery');
  install(join(own, 'init'), join(made, 'init'));
  install(join(own, 'lease'), join(made, 'usr/lib/postern/lease'));
  install(join(tree, 'usr/lib/postern/lease'), join(made, 'usr/lib/postern/lease-of-slots'));
  installModules(made, kernelModules, [...board.modules.initramfs, ...board.modules.root, '8021q']);
  const empty = ['dev', 'proc', 'sys', 'run', 'tmp', 'data', 'config', 'scratch', 'root'];
  return packInitramfs(made, empty);
}
