import { execFileSync } from 'node:child_process';
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A real file system of a few mebibytes, to be filled. */
export class SmallDisk implements Disposable {
  readonly folder: string;
  readonly #around: string;

  private constructor(around: string, folder: string) {
    this.#around = around;
    this.folder = folder;
  }

  /** Undefined where file systems cannot be mounted: without the rights of root. */
  static mount(mebibytes: number): SmallDisk | undefined {
    const around = mkdtempSync(join(tmpdir(), 'postern-disk-'));
    const folder = join(around, 'disk');
    mkdirSync(folder);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', folder], {
        stdio: 'ignore',
      });
    } catch {
      rmSync(around, { recursive: true });
      return undefined;
    }
    return new SmallDisk(around, folder);
  }

  /** Takes all the room that is left. */
  fill(): void {
    for (const size of [65_536, 4096, 1])
      try {
        for (;;) appendFileSync(this.#filler, Buffer.alloc(size));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      }
  }

  /** Gives the room back. */
  clear(): void {
    rmSync(this.#filler, { force: true });
  }

  /** Makes all writes fail, as a disk does that the kernel has remounted after an error. */
  setReadOnly(readOnly: boolean): void {
    execFileSync('mount', ['-o', `remount,${readOnly ? 'ro' : 'rw'}`, this.folder]);
  }

  [Symbol.dispose](): void {
    // Lazily: a file that is still open must not keep the test from ending.
    execFileSync('umount', ['-l', this.folder]);
    rmSync(this.#around, { recursive: true });
  }

  get #filler(): string {
    return join(this.folder, 'filler');
  }
}
