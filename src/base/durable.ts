import { closeSync, fsyncSync, openSync } from 'node:fs';
import { open } from 'node:fs/promises';

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
