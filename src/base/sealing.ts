import { createCipheriv, createDecipheriv } from 'node:crypto';
import { readFileSync, renameSync } from 'node:fs';
import { writeDurably } from './durable.ts';
import type { Entropy } from './entropy.ts';

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/** Encrypts what is stored, by AES-256-GCM. The key is not in the file with what it encrypts. */
export class Sealing {
  readonly #key: Uint8Array;
  readonly #entropy: Entropy;

  /** @param key 32 random bytes */
  constructor(key: Uint8Array, entropy: Entropy) {
    this.#key = key;
    this.#entropy = entropy;
  }

  /** @param name what the bytes belong to; they open only with the same name */
  seal(bytes: Uint8Array, name: string): Buffer {
    const nonce = this.#entropy.bytes(nonceBytes);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(name));
    return Buffer.concat([nonce, cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
  }

  /** Undefined when the bytes were sealed by another key or for another name, or were changed. */
  open(sealed: Uint8Array, name: string): Buffer | undefined {
    const end = sealed.length - tagBytes;
    if (end < nonceBytes) return undefined;
    try {
      const decipher = createDecipheriv('aes-256-gcm', this.#key, sealed.subarray(0, nonceBytes))
        .setAAD(Buffer.from(name))
        .setAuthTag(sealed.subarray(end));
      return Buffer.concat([decipher.update(sealed.subarray(nonceBytes, end)), decipher.final()]);
    } catch {
      return undefined;
    }
  }
}

/**
 * The key for `Sealing`, in a file that only this user may read. The file is made where it is missing. Whoever has a copy of the
 * state file alone can then not read what is sealed in it.
 *
 * No fault of this file keeps a program from its work: what was sealed by a lost key is lost, and all else is not. A file that holds
 * no key is set aside. A key that the disk does not take is kept in memory, and written later by `keep`.
 */
export class SealingKey {
  readonly bytes: Uint8Array;
  readonly #file: string | undefined;
  readonly #told: (reason: string) => void;
  #isKept = true;
  #isTold = false;

  /**
   * @param file none: the key lives as long as the process
   * @param told called with what is wrong with the file, once for each cause
   */
  constructor(file: string | undefined, entropy: Entropy, told: (reason: string) => void) {
    this.#file = file;
    this.#told = told;
    const found = file === undefined ? undefined : this.#read(file);
    this.bytes = found ?? entropy.bytes(keyBytes);
    if (found || file === undefined) return;
    this.#isKept = false;
    this.keep();
  }

  /** Writes the key where the disk has not taken it yet. */
  keep(): void {
    if (this.#isKept || this.#file === undefined) return;
    try {
      writeDurably(this.#file, this.bytes);
      this.#isKept = true;
    } catch (thrown) {
      if (!this.#isTold) this.#told(`the key cannot be stored: ${messageOf(thrown)}`);
      this.#isTold = true;
    }
  }

  #read(file: string): Uint8Array | undefined {
    try {
      const key = readFileSync(file);
      if (key.length === keyBytes) return key;
      const aside = `${file}.corrupt`;
      this.#told(`the file holds ${key.length} bytes and no key of ${keyBytes}; it is set aside as ${aside}`);
      renameSync(file, aside);
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#told(`the key cannot be read: ${messageOf(thrown)}`);
    }
    return undefined;
  }
}

const messageOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown));
