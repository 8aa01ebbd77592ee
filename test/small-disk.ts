import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

const run = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: 'pipe' });

/** Removes what a test process has mounted, also when the process ends before its tests do. */
const mounted = new Set<string>();
const unmount = (folder: string) => {
  if (!mounted.delete(folder)) return;
  run('umount', '--lazy', folder);
  rmdirSync(folder);
};
process.once('exit', () => {
  for (const folder of mounted) unmount(folder);
});

/**
 * A small file system of its own: its disk is really full when it is full. Skips the test, and returns undefined, where
 * nothing can be mounted.
 * @param kind a tmpfs, or ext4 in a file behind a loop device
 */
export function smallDisk(
  t: TestContext,
  mebibytes: number,
  kind: 'tmpfs' | 'ext4' = 'tmpfs',
): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'postern-disk-'));
  try {
    if (kind === 'tmpfs') run('mount', '-t', 'tmpfs', '-o', `size=${mebibytes}M,mode=700`, 'tmpfs', folder);
    else {
      const file = `${folder}.img`;
      t.after(() => run('rm', '-f', file));
      writeFileSync(file, '');
      run('truncate', '-s', `${mebibytes}M`, file);
      run('mkfs.ext4', '-q', '-m', '0', file);
      run('mount', '-o', 'loop', file, folder);
    }
  } catch (thrown) {
    rmdirSync(folder);
    t.skip(`no file system can be mounted here: ${String(thrown).split('\n')[0]}`);
    return undefined;
  }
  mounted.add(folder);
  t.after(() => unmount(folder));
  return folder;
}
