import { copyFileSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from './tools.ts';

/** Where a snapshot is made: the heap knows the names of its folder and its files, so they are always the same. */
const workshop = '/tmp/postern-snapshot';
/** Where a snapshot goes, and the settings it is made by: names in the folder that Node runs in. */
const [blob, settings] = ['postern.snapshot', 'snapshot.json'] as const;
/** Seconds to wait for other builds, of which one at a time makes a snapshot; it takes a few. */
const patience = 120;
/** What a build that was killed left there goes first: the lock went with it. */
const inWorkshop = `
rm -rf "$0"; mv "$1" "$0"; cd "$0"
file=$2; shift 2
"$@" >&2
cp ${blob} "$file"
rm -rf "$0"`;

/**
 * Puts the settings into a folder by which Node makes a snapshot there, `postern.snapshot`, and answers with its arguments.
 *
 * The seeds hold for the making alone: where a snapshot is started from, Node chooses its own. Without the code cache, which is
 * for the parts of Node that are loaded later, it is less than half as large, and no slower.
 */
export function prepareSnapshot(folder: string, program: string): string[] {
  writeFileSync(join(folder, settings), JSON.stringify({ builder: program, withoutCodeCache: true }));
  return [
    ...['--no-warnings', '--random-seed=1', '--hash-seed=1'],
    ...['--snapshot-blob', blob, '--build-snapshot-config', settings],
  ];
}

/**
 * Loads the gateway's program as it will be loaded on the board, and writes down what Node's heap then holds: a start from this
 * snapshot reads, compiles and runs none of it again. Only the board's own Node can make it, so that runs here by QEMU's user
 * emulation. [Node, Startup snapshot]
 * @param tree root of the board, with Node and its libraries in place
 * @param program dist/postern-snapshot.cjs, or another that has a main function for snapshots
 * @param file that the snapshot goes to: the same bytes for the same Node and program
 */
export function makeSnapshot(tree: string, program: string, file: string): void {
  const folder = mkdtempSync(join(tmpdir(), 'postern-snapshot-'));
  copyFileSync(join(tree, 'usr/lib/ld-linux-aarch64.so.1'), join(folder, 'loader'));
  symlinkSync(join(tree, 'usr/lib/node/node'), join(folder, 'node'));
  copyFileSync(program, join(folder, 'postern.cjs'));
  const libraries = join(tree, 'usr/lib/aarch64-linux-gnu');
  const node = [
    // Libraries look at their environment when they are loaded: it is empty.
    ...['env', '-i', 'TZ=UTC', 'qemu-aarch64-static', '-cpu', 'cortex-a53'],
    ...[join(workshop, 'loader'), '--library-path', libraries, join(workshop, 'node')],
    ...prepareSnapshot(folder, 'postern.cjs'),
  ];
  const lock = ['--verbose', '--timeout', String(patience), `${workshop}.lock`];
  run('flock', [...lock, 'sh', '-ec', inWorkshop, workshop, folder, file, ...node]);
}
