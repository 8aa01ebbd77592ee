import { copyFileSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './tools.ts';

/**
 * The folder in which every snapshot is made. The heap contains the names of the folder and its files, so they must always
 * be the same.
 */
const workshop = '/tmp/postern-snapshot';
/** Names, in the folder in which Node runs, of the snapshot and of the settings for it. */
const [blob, settings] = ['postern.snapshot', 'snapshot.json'] as const;
/** Seconds to wait for other builds. Only one at a time makes a snapshot, which takes a few seconds. */
const patience = 120;
/**
 * Script that runs a command in the workshop: `$0` is the workshop, `$1` the folder that becomes it, `$2` the file for the
 * snapshot, the rest is the command. A build that was killed may have left a workshop, since its lock ended with it.
 */
const inWorkshop = `
rm -rf "$0"; mv "$1" "$0"; cd "$0"
file=$2; shift 2
"$@" >&2
cp ${blob} "$file"
rm -rf "$0"`;

/**
 * Writes the settings for a snapshot into a folder. Returns the arguments with which Node, run in this folder, makes the
 * snapshot `postern.snapshot` there.
 *
 * The seeds are used while the snapshot is made. When a process starts from it, Node chooses its own seeds. The code cache
 * is for the parts of Node that are loaded later. Without it the snapshot is less than half as large, and not slower.
 * @param program file name of the program, in the folder
 */
export function prepareSnapshot(folder: string, program: string): string[] {
  writeFileSync(join(folder, settings), JSON.stringify({ builder: program, withoutCodeCache: true }));
  return [
    ...['--no-warnings', '--random-seed=1', '--hash-seed=1'],
    ...['--snapshot-blob', blob, '--build-snapshot-config', settings],
  ];
}

/**
 * Loads the gateway's program in Node and writes Node's heap to a file. A start from this snapshot does not read, compile
 * or run the loading of the program again. Only the board's own Node can make it, so Node runs here in QEMU's user
 * emulation. The same Node and program give the same bytes. [Node, Startup snapshot]
 * @param tree root of the board, with Node and its libraries in place
 * @param program dist/postern-snapshot.cjs, or another program that sets a main function for snapshots
 * @param file path of the snapshot
 */
export function makeSnapshot(tree: string, program: string, file: string): void {
  const folder = mkdtempSync(join(tmpdir(), 'postern-snapshot-'));
  copyFileSync(join(tree, 'usr/lib/ld-linux-aarch64.so.1'), join(folder, 'loader'));
  symlinkSync(join(tree, 'usr/lib/node/node'), join(folder, 'node'));
  copyFileSync(program, join(folder, 'postern.cjs'));
  const libraries = join(tree, 'usr/lib/aarch64-linux-gnu');
  const node = [
    // Libraries read their environment when they are loaded, so it is empty but for the time zone.
    ...['env', '-i', 'TZ=UTC', 'qemu-aarch64-static', '-cpu', 'cortex-a53'],
    ...[join(workshop, 'loader'), '--library-path', libraries, join(workshop, 'node')],
    ...prepareSnapshot(folder, 'postern.cjs'),
  ];
  const lock = ['--verbose', '--timeout', String(patience), `${workshop}.lock`];
  run('flock', [...lock, 'sh', '-ec', inWorkshop, workshop, folder, file, ...node]);
}
