import { hash } from 'node:crypto';
import { accessSync, constants, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { replaceDurably, syncFolder, writeDurably } from '../../base/durable.ts';
import { asPosternError, PosternError } from '../../base/errors.ts';
import type { EnrolledAccount } from './board-identity.ts';
import { IdentityFiles } from './identity-files.ts';

/**
 * How far a departure has come: `leaving`: the state is to be wiped, and the owner to be told. `told`: the owner knows, or
 * cannot be told any more. `left`: the board belongs to nobody.
 */
export type DepartureState = 'leaving' | 'told' | 'left';

/**
 * The marks of a departure in the folder of a board's identity. Each mark but the last is the account of the board under
 * another name: to rename a file needs no room on the disk, and takes effect as a whole. A board without `enrolled.json`
 * is not enrolled, so it serves nobody from the first mark on.
 */
export class DepartureMarks {
  readonly #folder: string;
  /** Reads and writes the files with secrets. */
  readonly files: IdentityFiles;

  constructor(folder: string, files = new IdentityFiles()) {
    this.#folder = folder;
    this.files = files;
  }

  /** Folder of the identity at the next owner, while the gateway passes to it. */
  get next(): string {
    return join(this.#folder, 'next');
  }

  get state(): DepartureState | undefined {
    return (['told', 'leaving', 'left'] as const).find((state) => existsSync(this.#file(state)));
  }

  /** @throws {PosternError} `storage` where the disk is read-only */
  demandPossible(): void {
    this.#stored(() => accessSync(this.#folder, constants.W_OK));
  }

  /**
   * The departure begins, and is gone through with from now on. With the folder `next` the gateway passes to another owner.
   * @param isTransfer false gives up a transfer that has begun
   * @throws {PosternError} `storage`
   */
  leave(isTransfer = false): void {
    if (this.state !== undefined) return;
    this.#stored(() => {
      if (!isTransfer) rmSync(this.next, { recursive: true, force: true });
      replaceDurably(join(this.#folder, 'enrolled.json'), this.#file('leaving'));
    });
  }

  /** Whether the gateway passes to another owner. */
  get isTransfer(): boolean {
    return existsSync(this.next) || existsSync(join(this.#folder, 'enrolled.json'));
  }

  /** The account of a board that is leaving. Undefined when it cannot be read, or a file that belongs to it is missing. */
  account(): EnrolledAccount | undefined {
    if (!['gateway.key', 'gateway.crt'].every((name) => existsSync(join(this.#folder, name))))
      return undefined;
    try {
      return JSON.parse(this.files.read(this.#file('leaving')).toString()) as EnrolledAccount;
    } catch {
      return undefined;
    }
  }

  /** The owner knows. @throws {PosternError} `storage` */
  tell(): void {
    if (this.state === 'leaving')
      this.#stored(() => replaceDurably(this.#file('leaving'), this.#file('told')));
  }

  /**
   * Deletes the identity and the key by which it is encrypted, and says that this board belongs to nobody.
   * @param code one-time code of the configuration, by which the board is not enrolled again
   * @throws {PosternError} `storage`
   */
  end(code: string | undefined): void {
    this.#stored(() => {
      if (!existsSync(this.#file('left'))) writeDurably(this.#file('left'), hashOf(code));
      this.files.forget();
      for (const name of readdirSync(this.#folder))
        if (name !== 'left') rmSync(join(this.#folder, name), { recursive: true, force: true });
      syncFolder(this.#folder);
    });
  }

  /** Puts the identity at the next owner in the place of the one before. @throws {PosternError} `storage` */
  takeNext(): void {
    this.#stored(() => {
      const coming = taken.filter((name) => existsSync(join(this.next, name)));
      for (const name of readdirSync(this.#folder))
        if (name !== 'next' && name !== 'told' && !(taken.includes(name) && !coming.includes(name)))
          rmSync(join(this.#folder, name), { recursive: true, force: true });
      // The account comes last: it makes the identity whole.
      for (const name of coming) replaceDurably(join(this.next, name), join(this.#folder, name));
      rmSync(this.next, { recursive: true, force: true });
    });
  }

  /** Ends a departure to another owner. @throws {PosternError} `storage` */
  arrive(): void {
    this.#stored(() => {
      rmSync(this.#file('told'), { force: true });
      syncFolder(this.#folder);
    });
  }

  /** Lets a board that belongs to nobody be enrolled by a code that it did not have before. Returns whether it may be. */
  beginAnew(code: string | undefined): boolean {
    if (code === undefined || readFileSync(this.#file('left'), 'utf8') === hashOf(code)) return false;
    this.#stored(() => {
      rmSync(this.#file('left'));
      syncFolder(this.#folder);
    });
    return true;
  }

  #file(state: DepartureState): string {
    return join(this.#folder, state);
  }

  #stored(work: () => void): void {
    try {
      work();
    } catch (cause) {
      throw new PosternError('storage', `${this.#folder}: ${asPosternError(cause).message}`, { cause });
    }
  }
}

/** Files of the identity at the next owner, in the order in which they take their places. */
const taken = ['owner.json', 'ca.pem', 'gateway.pub', 'gateway.key', 'gateway.crt', 'enrolled.json'];

const hashOf = (code = ''): string => hash('sha256', code);
