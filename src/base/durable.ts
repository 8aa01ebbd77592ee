import { closeSync, fsyncSync, openSync, renameSync, writeFileSync } from 'node:fs';
import { open, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Flushes a small file to the disk. Returns when its content survives a power cut. */
export function syncFile(path: string): void {
  const file = openSync(path, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Flushes a folder to the disk, so that created, renamed and deleted files in it survive a power cut. */
export const syncFolder = syncFile;

/** Replaces a small file, for its owner only, so that after a power cut it holds either the new or the old content. */
export function writeDurably(file: string, content: string | Uint8Array): void {
  writeFileSync(`${file}.new`, content, { mode: 0o600 });
  syncFile(`${file}.new`);
  renameSync(`${file}.new`, file);
  syncFolder(dirname(file));
}

/** Gives a file another name in the same folder, in place of a file that has it, so that this survives a power cut. */
export function replaceDurably(file: string, target: string): void {
  renameSync(file, target);
  syncFolder(dirname(target));
}

/**
 * Flushes a large file to the disk. Flash memory may take seconds for that, so this does not block: devices are served
 * meanwhile.
 */
export async function syncLargeFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** As `writeDurably`. The event loop goes on meanwhile. */
export async function writeWithoutBlocking(file: string, content: string | Uint8Array): Promise<void> {
  await writeFile(`${file}.new`, content, { mode: 0o600 });
  await syncLargeFile(`${file}.new`);
  await rename(`${file}.new`, file);
  await syncLargeFile(dirname(file));
}
