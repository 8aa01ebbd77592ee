import { existsSync, mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes a folder and those above it that are missing. Node's own recursive `mkdir` never returns where the kernel answers
 * ENOENT although the folder above exists, as below /proc.
 * @throws the error of the file system
 */
export function makeFolder(path: string, options: { readonly mode?: number } = {}): void {
  // What stands in its place is said by the file system.
  if (existsSync(path) && !statSync(path).isDirectory()) mkdirSync(path);
  const missing: string[] = [];
  for (let at = path; !existsSync(at); at = dirname(at)) {
    missing.unshift(at);
    if (dirname(at) === at) break;
  }
  for (const folder of missing)
    try {
      mkdirSync(folder, options);
    } catch (thrown) {
      // Another process may make it at the same time.
      if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw thrown;
    }
}
