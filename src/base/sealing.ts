import { createCipheriv, createDecipheriv } from 'node:crypto';
import { existsSync } from 'node:fs';
import { writeDurably } from './durable.ts';
import type { Entropy } from './entropy.ts';
import { asPosternError, PosternError } from './errors.ts';
import { readNamedFile } from './named-file.ts';

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
 * The key of the platform for `Sealing`, from a file that only this user may read. The file is made where it is missing. Whoever
 * has a copy of the state file alone can then not read what is sealed in it.
 * @throws {PosternError} `configuration` when the file cannot be read or made, or holds something else
 */
export function sealingKey(file: string, entropy: Entropy): Uint8Array {
  if (existsSync(file)) {
    const key = readKey(file);
    if (key.length !== keyBytes) throw new PosternError('configuration', `${file} does not hold a key`);
    return key;
  }
  const key = entropy.bytes(keyBytes);
  try {
    writeDurably(file, key);
  } catch (thrown) {
    throw new PosternError('configuration', `${file}: ${String(thrown)}`, { cause: thrown });
  }
  return key;
}

function readKey(file: string): Buffer {
  try {
    return readNamedFile(file);
  } catch (cause) {
    throw new PosternError('configuration', `${file} ${asPosternError(cause).message}`, { cause });
  }
}
