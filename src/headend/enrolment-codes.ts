import { hash } from 'node:crypto';
import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { TokenBuckets } from '../base/token-buckets.ts';

/** A one-time code as it is made. Only its hash is stored. */
export interface NewCode {
  /** 128 random bits, as text of 22 characters. */
  readonly code: string;
  /** The only gateway that it is good for. Absent: any name that is free. */
  readonly gateway?: string;
  /** Milliseconds since 1970. */
  readonly expires: number;
}

/** A code that was made elsewhere, for one gateway. */
export interface MadeCode {
  readonly gateway: string;
  /** SHA-256 of the code, 64 hexadecimal digits in lower case. */
  readonly hash: string;
}

/** Most codes, used or not. Those that expired longest ago are deleted for new ones. */
export const codeLimit = 10_000;
const codeBytes = 16;
const hour = 3_600_000;
/** Wrong codes: of one key, and of all that ask by one claim. */
const tries = { key: { rate: 1 / 600, burst: 5 }, claim: { rate: 1, burst: 100 }, names: 4096 } as const;

/** One-time codes. Each of them lets one board in: the first key that shows it. */
export class EnrolmentCodes {
  readonly #database: Database;
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  readonly #keys = new TokenBuckets(tries.key, tries.names);
  readonly #claims = new TokenBuckets(tries.claim, tries.names);

  constructor({ database, clock, entropy }: { database: Database; clock: Clock; entropy: Entropy }) {
    this.#database = database;
    this.#clock = clock;
    this.#entropy = entropy;
  }

  /**
   * Makes a code.
   * @throws {PosternError} `full` when there are too many that have not expired
   */
  make(hours: number, gateway?: string): NewCode {
    const database = this.#database;
    const code = Buffer.from(this.#entropy.bytes(codeBytes)).toString('base64url');
    const expires = Math.round(this.#clock.wall() + hours * hour);
    database.transaction(() => this.#keep(hashOf(code), gateway, expires));
    return { code, expires, ...(gateway !== undefined && { gateway }) };
  }

  /**
   * Takes a code that was made elsewhere. Call it in the transaction that takes all codes of a batch.
   * @param expires milliseconds since 1970
   * @returns false when it was taken before, for the same gateway
   * @throws {PosternError} `conflict` when it is known for another gateway; `full`
   */
  take({ gateway, hash: digest }: MadeCode, expires: number): boolean {
    const found = this.#database.prepare('SELECT gateway FROM enrolment_code WHERE hash = ?').get(digest) as
      | { gateway: string | null }
      | undefined;
    if (found && found.gateway !== gateway)
      throw new PosternError('conflict', `the code for ${gateway} is known as that of another gateway`);
    if (!found) this.#keep(digest, gateway, expires);
    return !found;
  }

  /** @throws {PosternError} `full` */
  #keep(digest: string, gateway: string | undefined, expires: number): void {
    const database = this.#database;
    const { count } = database.prepare('SELECT count(*) AS count FROM enrolment_code').get() as {
      count: number;
    };
    if (count >= codeLimit) {
      const { changes } = database
        .prepare(
          'DELETE FROM enrolment_code WHERE hash = (SELECT hash FROM enrolment_code WHERE expires < ? ORDER BY expires LIMIT 1)',
        )
        .run(Math.round(this.#clock.wall()));
      if (Number(changes) === 0)
        throw new PosternError('full', `there are ${codeLimit} codes that have not expired`);
    }
    database
      .prepare('INSERT INTO enrolment_code (hash, gateway, expires, used_by) VALUES (?, ?, ?, NULL)')
      .run(digest, gateway ?? null, expires);
  }

  /**
   * Uses a code for a key. For the key that has used it this may be done again. Call it in the transaction that approves the key.
   * @returns the gateway that the code is for; undefined when it is for any
   * @throws {PosternError} `conflict` when another key has used it; `forbidden` when it is wrong, has expired, or is for another
   *   gateway; `lockedOut` after too many wrong ones
   */
  use(code: string, key: string, claim: string, gateway: string): string | undefined {
    const buckets = [
      this.#keys.of(`${claim} ${key}`, this.#clock.now()),
      this.#claims.of(claim, this.#clock.now()),
    ];
    const rates = [tries.key, tries.claim];
    if (buckets.some((bucket, at) => bucket.level(rates[at]!, this.#clock.now()) < 1))
      throw new PosternError('lockedOut', 'too many wrong codes; it is tried again later');
    const found = this.#database
      .prepare('SELECT gateway, expires, used_by FROM enrolment_code WHERE hash = ?')
      .get(hashOf(code)) as { gateway: string | null; expires: number; used_by: string | null } | undefined;
    if (!found) {
      for (const [at, bucket] of buckets.entries()) bucket.take(rates[at]!, this.#clock.now());
      throw new PosternError('forbidden', 'the code is wrong');
    }
    if (found.used_by !== null && found.used_by !== key)
      throw new PosternError('conflict', 'another board has used the code');
    if (found.gateway !== null && found.gateway !== gateway)
      throw new PosternError('forbidden', 'the code is for another gateway');
    if (found.used_by === null && found.expires < this.#clock.wall())
      throw new PosternError('forbidden', 'the code has expired');
    this.#database.prepare('UPDATE enrolment_code SET used_by = ? WHERE hash = ?').run(key, hashOf(code));
    return found.gateway ?? undefined;
  }
}

/** A code has 128 random bits, so its hash needs no salt and no work factor. */
const hashOf = (code: string): string => hash('sha256', code);
