import { existsSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { writeDurably } from '../../base/durable.ts';
import { systemEntropy } from '../../base/entropy.ts';
import { PosternError } from '../../base/errors.ts';
import { makeFolder } from '../../base/make-folder.ts';
import { readNamedFile } from '../../base/named-file.ts';
import { type KeySource, PlatformSealing } from '../../base/sealing.ts';

/** First octet of a file that is encrypted. Neither PEM nor JSON begins with it. */
const mark = 1;
/** The name that the files are sealed for. All have the same one, because a departure renames them (`DepartureMarks`). */
const sealName = 'identity';
/** The files with secrets in the folder of an identity. */
const secretFiles = /^((gateway|claim)\.key|(enrolled|order)\.json(\.replaced)?|leaving|told)$/;

/** Seals by the key of the last key command. A reload must not wait for the command again. */
let commanded: PlatformSealing | undefined;

/**
 * Reads and writes the files with secrets in the folder of a board's identity. They are encrypted by the key of the platform. Files in
 * clear are read too: earlier versions and `postern provision` write them.
 */
export class IdentityFiles {
  readonly #source: KeySource | undefined;
  #sealing: PlatformSealing | undefined;
  /** What is wrong with the key file. */
  #fault = '';

  /** @param source of the key; without it files are written in clear, and only those in clear can be read */
  constructor(source?: KeySource) {
    this.#source = source;
  }

  /**
   * Reads a file as `readNamedFile` does, and decrypts it.
   * @throws {PosternError} `configuration`: as `readNamedFile`; also when another key has encrypted the file, or the key command fails
   */
  readonly read = (file: string): Buffer => {
    const content = readNamedFile(file);
    if (content[0] !== mark) return content;
    const opened = this.#sealer()?.open(content.subarray(1), sealName);
    if (opened) return opened;
    throw new PosternError(
      'configuration',
      `is encrypted, and the key of ${this.#sealing?.source} does not open it${this.#fault}; bring back the right key, or remove the file to enrol this gateway again`,
    );
  };

  /** Whether the key opens a file. Undefined for one that is in clear, and for one that cannot be read. */
  opens(file: string): boolean | undefined {
    try {
      const content = readNamedFile(file);
      return content[0] === mark
        ? this.#sealer()?.open(content.subarray(1), sealName) !== undefined
        : undefined;
    } catch {
      return undefined;
    }
  }

  /** Replaces a file durably, and encrypts it. @throws {Error} of the file system, {PosternError} `storage`, `configuration` */
  write(file: string, content: string | Buffer): void {
    // The state makes this folder, but later.
    if (this.#source && 'file' in this.#source) makeFolder(dirname(this.#source.file));
    const sealed = this.#sealer()?.seal(Buffer.from(content), sealName);
    writeDurably(file, sealed ? Buffer.concat([Buffer.of(mark), sealed]) : content);
  }

  /** Encrypts the files of a folder that are in clear. Each is replaced as a whole. @throws as `write` */
  sealAll(folder: string): void {
    if (!existsSync(folder)) return;
    for (const name of readdirSync(folder).filter((one) => secretFiles.test(one))) {
      const file = join(folder, name);
      // A file that cannot be read stays. Whoever needs it says so.
      const content = orUndefined(() => readNamedFile(file));
      if (content && content[0] !== mark) this.write(file, content);
    }
  }

  /** Deletes the key file. What is encrypted by it cannot be read any more. A key that a command gives stays. */
  forget(): void {
    if (this.#source && 'file' in this.#source) rmSync(this.#source.file, { force: true });
    this.#sealing = undefined;
  }

  /** @throws {PosternError} `configuration` when the command gives no key */
  #sealer(): PlatformSealing | undefined {
    const source = this.#source;
    if (!source || this.#sealing) return this.#sealing;
    const make = () =>
      new PlatformSealing(source, systemEntropy, (reason) => {
        this.#fault = ` (${reason})`;
      });
    if ('file' in source) this.#sealing = make();
    else {
      if (commanded?.source !== source.command.join(' ')) commanded = make();
      this.#sealing = commanded;
    }
    return this.#sealing;
  }
}

/** Undefined in place of an error. */
export function orUndefined<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
