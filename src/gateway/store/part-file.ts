import { readdirSync, rmSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { hashedName } from '../../base/hashed-name.ts';

const suffix = '.part';

/**
 * A file while it is received. The name on disk holds a digest of the URL and of the version at the server. So bytes of one
 * version are never continued with bytes of another, whatever was stored last before a power cut.
 */
export class PartFile {
  readonly #file: string;

  /** @param file path of the complete file, whose name begins the names of its parts */
  constructor(file: string) {
    this.#file = file;
  }

  /**
   * Path of the bytes of one version.
   * @param validator ETag or Last-Modified of the version; undefined when the server names none
   */
  path(url: string, validator: string | undefined): string {
    return `${this.#file}.${hashedName(`${url}\n${validator ?? ''}`)}${suffix}`;
  }

  /** Bytes of this version that are there. */
  received(url: string, validator: string | undefined): number {
    return statSync(this.path(url, validator), { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Bytes of all versions that are there. */
  get bytes(): number {
    return this.#paths().reduce(
      (sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0),
      0,
    );
  }

  /** Opens one version for writing, cuts it off at `from`, and deletes the other versions. */
  async open(url: string, validator: string | undefined, from: number): Promise<FileHandle> {
    const path = this.path(url, validator);
    for (const other of this.#paths()) if (other !== path) rmSync(other, { force: true });
    if (from === 0) return await open(path, 'w', 0o600);
    const file = await open(path, 'r+');
    await file.truncate(from).catch(async (thrown) => {
      await file.close();
      throw thrown;
    });
    return file;
  }

  /** Deletes all versions. */
  drop(): void {
    for (const path of this.#paths()) rmSync(path, { force: true });
  }

  #paths(): string[] {
    const folder = dirname(this.#file);
    const isPart = (name: string) => name.startsWith(`${basename(this.#file)}.`) && name.endsWith(suffix);
    return readdirSync(folder)
      .filter(isPart)
      .map((name) => join(folder, name));
  }
}
