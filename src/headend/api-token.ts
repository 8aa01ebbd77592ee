import { createHash, timingSafeEqual } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type Entropy, systemEntropy } from '../base/entropy.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { demandOf } from '../base/named-file.ts';
import { makePrivateFolder, userFolder } from '../base/private-folder.ts';

const tokenBytes = 32;
/** Characters of a token that is looked at. A token of this server has 43. */
const longest = 128;

export interface ApiTokenPlace {
  /** File of the head-end's state, or `:memory:`. */
  readonly state: string;
  /** File that a new token is written to. By default beside the state, or in the folder of the user. */
  readonly file?: string | undefined;
}

/**
 * The token of the API. It is made at the first start and written to a file that only this user can read. The head-end itself
 * keeps its SHA-256 only, in a file beside its state: a token has 256 random bits, so no slow hash is needed. The file with the
 * token may be moved away. A head-end without a state file makes a token at each start.
 */
export class ApiToken {
  /** Where a new token is written. */
  readonly file: string;
  readonly #hashFile: string | undefined;
  readonly #entropy: Entropy;
  #hash: Buffer | undefined;
  #read = '';

  constructor({ state, file }: ApiTokenPlace, entropy: Entropy = systemEntropy) {
    const isKept = state !== ':memory:';
    this.#hashFile = isKept ? `${state}.token-hash` : undefined;
    this.file = file ?? (isKept ? `${state}.token` : join(userFolder(), 'headend.token'));
    this.#entropy = entropy;
  }

  /**
   * Makes a token if there is none yet. Returns whether it made one.
   * @throws {PosternError} `configuration` when a file cannot be written
   */
  prepare(): boolean {
    this.#refresh();
    if (this.#hash) return false;
    this.renew();
    return true;
  }

  /**
   * Makes a new token. The one before is not accepted any more, by a head-end that runs either.
   * @throws {PosternError} `configuration` when a file cannot be written
   */
  renew(): void {
    const token = Buffer.from(this.#entropy.bytes(tokenBytes)).toString('base64url');
    if (dirname(this.file) === userFolder()) makePrivateFolder(userFolder(), 'api.token-file');
    // A power cut between the two leaves a token without a hash, which the next start replaces.
    writePrivate(this.file, `Authorization: Bearer ${token}\n`, earlierToken);
    this.#hash = hashOf(token);
    if (this.#hashFile !== undefined) writePrivate(this.#hashFile, `${this.#hash.toString('hex')}\n`);
  }

  /** Whether this is the token. The time that it takes says nothing about the token. */
  accepts(token: string): boolean {
    this.#refresh();
    return this.#hash !== undefined && token.length <= longest && timingSafeEqual(hashOf(token), this.#hash);
  }

  /** Reads the hash if `postern headend --new-token` has replaced its file. */
  #refresh(): void {
    if (this.#hashFile === undefined) return;
    try {
      const { ino, mtimeMs } = statSync(this.#hashFile);
      if (this.#read === `${ino} ${mtimeMs}`) return;
      const text = readFileSync(this.#hashFile, 'latin1').trim();
      this.#hash = /^[0-9a-f]{64}$/.test(text) ? Buffer.from(text, 'hex') : undefined;
      this.#read = `${ino} ${mtimeMs}`;
    } catch {
      // A head-end that runs goes on with the hash that it has read. At a start there is none yet.
    }
  }
}

const hashOf = (token: string): Buffer => createHash('sha256').update(token).digest();

/** An earlier token, or nothing. A new token replaces no file that holds anything else: its name may be a mistake. */
const earlierToken = /^(Authorization: Bearer .*\s*)?$/;
/** Bytes of the largest file that may hold a token. */
const largest = 256;

/**
 * Writes a file that only this user can read. It is never there in part.
 * @param former what a file at this path may hold, if not anything. A link is replaced, and what it leads to stays
 * @throws {PosternError} `configuration`
 */
function writePrivate(file: string, text: string, former?: RegExp): void {
  const fresh = `${file}.new`;
  try {
    const there = statSync(file, { throwIfNoEntry: false });
    const reason = there && demandOf(there);
    if (reason !== undefined) throw new PosternError('configuration', `it ${reason}`);
    const isFile = lstatSync(file, { throwIfNoEntry: false })?.isFile();
    if (former && isFile && (there!.size > largest || !former.test(readFileSync(file, 'latin1'))))
      throw new PosternError(
        'configuration',
        'it holds something else; name another file, or remove this one',
      );
    rmSync(fresh, { force: true });
    // An existing file, or a link that somebody else has put here, is not written through.
    const descriptor = openSync(fresh, 'wx', 0o600);
    try {
      writeSync(descriptor, text);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(fresh, file);
  } catch (cause) {
    const { message } = asPosternError(cause);
    throw new PosternError('configuration', `api.token-file: ${file} cannot be written: ${message}`, {
      cause,
    });
  }
}
