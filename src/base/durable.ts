import { closeSync, fsyncSync, openSync } from 'node:fs';
import { open } from 'node:fs/promises';

/** What a small file holds is on the disk when this returns. */
export function syncFile(path: string): void {
  const file = openSync(path, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** That files of a folder were made, renamed or deleted is on the disk when this returns. */
export const syncFolder = syncFile;

/** What a large file holds is on the disk when this resolves; flash takes seconds, in which devices are to be served. */
export async function syncLargeFile(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
