import { spawnSync } from 'node:child_process';
import { createCipheriv, createDecipheriv } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import { replaceDurably, writeDurably, writeWithoutBlocking } from './durable.ts';
import type { Entropy } from './entropy.ts';
import { asPosternError, PosternError } from './errors.ts';
import { readNamedFile } from './named-file.ts';
import { partial, setAside } from './recover-state.ts';
import { actualFile } from './state-lock.ts';

const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

/** Encrypts what is stored. The key is not in the file with what it encrypts. */
export interface Sealer {
  /**
   * @param name what the bytes belong to; they open only with the same name
   * @throws {PosternError} `storage` when there is no key, and none can be stored
   */
  seal(bytes: Uint8Array, name: string): Buffer;
  /** Undefined when the bytes were sealed by another key or for another name, or were changed. */
  open(sealed: Uint8Array, name: string): Buffer | undefined;
}

/** Encrypts by AES-256-GCM. */
export class Sealing implements Sealer {
  readonly #key: Uint8Array;
  readonly #entropy: Entropy;

  /** @param key 32 random bytes */
  constructor(key: Uint8Array, entropy: Entropy) {
    this.#key = key;
    this.#entropy = entropy;
  }

  seal(bytes: Uint8Array, name: string): Buffer {
    const nonce = this.#entropy.bytes(nonceBytes);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce).setAAD(Buffer.from(name));
    return Buffer.concat([nonce, cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
  }

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

/** Where the key of the platform comes from: a file beside the state, or a command such as one that asks a TPM. */
export type KeySource = { readonly file: string } | { readonly command: readonly string[] };

/** Milliseconds and bytes of the output within which a key command must end. */
const commandBounds = { timeout: 30_000, maxBuffer: 4096 } as const;

/**
 * Seals with the key of the platform. Whoever has a copy of the state file alone can then not read what is sealed in it.
 *
 * No fault of the key file keeps a program from its start. A file that is missing is made when something is sealed for the first time.
 * One that holds no key is set aside. One that cannot be read stays as it is: until it can, nothing is opened or sealed.
 */
export class PlatformSealing implements Sealer {
  readonly #source: KeySource;
  readonly #entropy: Entropy;
  readonly #told: (reason: string) => void;
  #sealing: Sealing | undefined;
  /** What was said last. The same is said once. */
  #said: string | undefined;

  /**
   * @param told called with what is wrong with the key file
   * @throws {PosternError} `configuration` when the command gives no key
   */
  constructor(source: KeySource, entropy: Entropy, told: (reason: string) => void) {
    this.#source = source;
    this.#entropy = entropy;
    this.#told = told;
    try {
      const key = 'file' in source ? keyIn(source.file) : keyOf(source.command);
      if (key) this.#sealing = new Sealing(key, entropy);
    } catch (thrown) {
      this.#tell(thrown);
    }
  }

  /** Tells what is wrong with the key file. Other faults are thrown again. */
  #tell(thrown: unknown): void {
    const { code, message } = asPosternError(thrown);
    if (code !== 'storage') throw thrown;
    if (this.#said === message) return;
    this.#said = message;
    this.#told(message);
  }

  /** What says where the key is, for messages. */
  get source(): string {
    return 'file' in this.#source ? this.#source.file : this.#source.command.join(' ');
  }

  /** @throws {PosternError} `storage` when the key cannot be read, or there is none yet and it cannot be written */
  seal(bytes: Uint8Array, name: string): Buffer {
    try {
      this.#sealing ??= new Sealing(keyIn(this.source) ?? this.#newKey(), this.#entropy);
    } catch (thrown) {
      this.#tell(thrown);
      throw thrown;
    }
    return this.#sealing.seal(bytes, name);
  }

  open(sealed: Uint8Array, name: string): Buffer | undefined {
    return this.#sealing?.open(sealed, name);
  }

  #newKey(): Uint8Array {
    const key = this.#entropy.bytes(keyBytes);
    try {
      writeDurably(this.source, key);
    } catch (cause) {
      // It may have its name already, and not survive a power cut.
      rmSync(this.source, { force: true });
      throw new PosternError('storage', `the key ${this.source} cannot be written: ${String(cause)}`, {
        cause,
      });
    }
    return key;
  }
}

/** The file of the key that belongs to a state file, or to a backup of one: beside the file itself, where the name is a symbolic link. */
export const keyFileOf = (state: string): string => `${actualFile(state)}.key`;

/**
 * Copies the key of a state file beside a backup that is to be made of it. It is copied first: without it there is no backup either.
 * @param make makes the backup. When it fails, there is no copy of the key
 * @throws {PosternError} `notFound` when there is no such key, `conflict` when the backup or its key exists, `storage`
 */
export async function backUpWithKey(state: string, backup: string, make: () => Promise<void>): Promise<void> {
  const [from, to] = [keyFileOf(state), keyFileOf(backup)];
  for (const file of [backup, to])
    if (existsSync(file))
      throw new PosternError('conflict', `${file} exists already; take another name, or remove it`);
  const key = keyIn(from);
  if (!key) throw new PosternError('notFound', `there is no key ${from}: nothing was sealed by it`);
  try {
    await writeWithoutBlocking(to, key);
    await make();
  } catch (cause) {
    rmSync(to, { force: true });
    if (cause instanceof PosternError) throw cause;
    throw new PosternError('storage', `the key ${to} cannot be written: ${String(cause)}`, { cause });
  }
}

/**
 * Writes the key of a backup, if there is one, beside that of a state, and returns what puts it in its place. So nothing has changed
 * while something may still fail. Whatever was in that place is kept beside.
 * @throws {PosternError} `storage` when the key of the backup cannot be read or is none
 */
export function stageKey(backup: string, state: string): () => void {
  const key = keyIn(keyFileOf(backup), false);
  const to = keyFileOf(state);
  if (!key || holds(to, key)) return () => {};
  const part = to + partial;
  writeDurably(part, key);
  return () => {
    if (existsSync(to)) setAside(to, 'replaced');
    replaceDurably(part, to);
  };
}

/** Whether a file is this key. A file that cannot be read is not. */
function holds(file: string, key: Buffer): boolean {
  try {
    return readNamedFile(file).equals(key);
  } catch {
    return false;
  }
}

/**
 * The key in a file. Undefined when there is no such file.
 * @param isOwn a file that holds something else is set aside. One of a backup stays
 * @throws {PosternError} `storage`
 */
function keyIn(file: string, isOwn = true): Buffer | undefined {
  let key: Buffer;
  try {
    key = readNamedFile(file);
  } catch (thrown) {
    const { cause, message } = asPosternError(thrown);
    if ((cause as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return undefined;
    throw new PosternError('storage', `the key ${file} ${message}`, { cause: thrown });
  }
  if (key.length === keyBytes) return key;
  const what = `${isOwn ? 'the file' : file} holds ${key.length} bytes and no key of ${keyBytes}; it`;
  if (!isOwn) throw new PosternError('storage', `${what} is no backup`);
  let aside: string;
  try {
    aside = setAside(file, 'corrupt');
  } catch (cause) {
    throw new PosternError('storage', `${what} cannot be set aside: ${String(cause)}`, { cause });
  }
  throw new PosternError('storage', `${what} is set aside as ${aside}`);
}

/** The key that a command prints: 32 bytes, or 64 hexadecimal digits. */
function keyOf([program = '', ...args]: readonly string[]): Uint8Array {
  const { error, status, stdout } = spawnSync(program, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...commandBounds,
  });
  const why = error ? error.message : `it ended with ${status}`;
  if (error || status !== 0)
    throw new PosternError('configuration', `the key command ${program} gave no key: ${why}`);
  const text = stdout.toString('latin1').trim();
  if (/^[0-9a-fA-F]{64}$/.test(text)) return Buffer.from(text, 'hex');
  if (stdout.length === keyBytes) return stdout;
  throw new PosternError(
    'configuration',
    `the key command ${program} printed ${stdout.length} bytes; expected ${keyBytes} bytes, or ${2 * keyBytes} hexadecimal digits`,
  );
}
