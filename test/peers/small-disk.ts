import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

const run = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: 'pipe' });

/** A real file system of a few mebibytes, to be filled. */
export class SmallDisk implements Disposable {
  readonly folder: string;
  readonly #around: string;

  private constructor(around: string, folder: string) {
    this.#around = around;
    this.folder = folder;
  }

  /**
   * A file system that its kernel makes read-only at the first error, as the flash of a board is mounted: ext4 in a file. Undefined
   * where it cannot be mounted, or where errors cannot be made.
   */
  static mountFragile(mebibytes: number): SmallDisk | undefined {
    const around = mkdtempSync(join(tmpdir(), 'postern-disk-'));
    const folder = join(around, 'disk');
    mkdirSync(folder);
    const made = new SmallDisk(around, folder);
    try {
      writeFileSync(made.#image, '');
      truncateSync(made.#image, mebibytes * 1024 * 1024);
      run('mkfs.ext4', '-q', '-m', '0', made.#image);
      made.#mountImage();
      if (existsSync(made.#trigger)) return made;
      made[Symbol.dispose]();
    } catch {
      rmSync(around, { recursive: true });
    }
    return undefined;
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

  /** Lets the kernel find an error in the file system: all writes fail from now on, those to open files too. */
  fail(): void {
    writeFileSync(this.#trigger, 'a test');
  }

  /** Mounts the file system again, as an operator does after the error. No file of it may be open. */
  mountAgain(): void {
    run('umount', this.folder);
    this.#mountImage();
  }

  get #image(): string {
    return join(this.#around, 'image');
  }

  #mountImage(): void {
    run('mount', '-o', 'loop,errors=remount-ro', this.#image, this.folder);
  }

  get #trigger(): string {
    const device = run('findmnt', '-no', 'SOURCE', this.folder).toString().trim();
    return `/sys/fs/ext4/${basename(device)}/trigger_fs_error`;
  }

  /** Makes the disk read-only, or writable again. No file of it may be open to be written. */
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
