import { copyFileSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from './tools.ts';

/** Where a snapshot is made: the heap knows the names of its folder and its files, so they are always the same. */
const workshop = '/tmp/postern-snapshot';
/** Milliseconds to wait for another build that makes one, which takes some seconds. */
const patience = { inAll: 120_000, once: 200 } as const;

/** Where a snapshot goes, and the settings it is made by: names in the folder that Node runs in. */
const [blob, settings] = ['postern.snapshot', 'snapshot.json'] as const;

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
  takeWorkshop();
  try {
    const [loader, node] = [join(workshop, 'loader'), join(workshop, 'node')];
    copyFileSync(join(tree, 'usr/lib/ld-linux-aarch64.so.1'), loader);
    symlinkSync(join(tree, 'usr/lib/node/node'), node);
    copyFileSync(program, join(workshop, 'postern.cjs'));
    // Libraries look at their environment when they are loaded: it is empty.
    run(
      'env',
      [
        ...['-i', 'TZ=UTC', 'qemu-aarch64-static'],
        ...['-cpu', 'cortex-a53', loader, '--library-path', join(tree, 'usr/lib/aarch64-linux-gnu'), node],
        ...prepareSnapshot(workshop, 'postern.cjs'),
      ],
      { cwd: workshop },
    );
    copyFileSync(join(workshop, blob), file);
  } finally {
    rmSync(workshop, { recursive: true });
  }
}

/** @throws {Error} when it stays taken */
function takeWorkshop(): void {
  for (let waited = 0; ; waited += patience.once) {
    try {
      return void mkdirSync(workshop, { mode: 0o700 });
    } catch (cause) {
      if (waited >= patience.inAll)
        throw new Error(`${workshop} is taken: remove it if no other build is running`, { cause });
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, patience.once);
    }
  }
}
