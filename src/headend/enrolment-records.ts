import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import { PosternError } from '../base/errors.ts';
import { type ReadableTable, readRows } from '../base/rows.ts';
import type { Sealer } from '../base/sealing.ts';
import type { Issued } from './certificate-authority.ts';

/**
 * `waiting`: a person decides. `approved`: the certificate is about to be issued. `issued`: it was. `refused`: by a person.
 * `replaced`: another board has the name now. `gone`: it was decommissioned or passed to another owner.
 */
export const enrolmentStates = ['waiting', 'approved', 'issued', 'refused', 'replaced', 'gone'] as const;
export type EnrolmentState = (typeof enrolmentStates)[number];

/** The request of a board, and what became of it. There is one for each key. */
export interface EnrolmentRecord {
  /** Rises with each record. Pages are addressed by it. */
  readonly number: number;
  /** ID of the key of the board. */
  readonly key: string;
  readonly gateway: string;
  readonly serial?: string;
  readonly claim: string;
  readonly state: EnrolmentState;
  /** Who approved or refused it, such as `code`, `list`, `policy`, `hand`. */
  readonly by?: string;
  readonly reason?: string;
  /** Milliseconds since 1970: when it was asked for first, when it was decided, when the certificate ends. */
  readonly asked: number;
  readonly decided?: number;
  readonly expires?: number;
  /** SubjectPublicKeyInfo in DER. */
  readonly publicKey: Uint8Array;
  /** Certificates in PEM. */
  readonly chain?: string;
  readonly secrets?: Uint8Array;
}

/** The secrets of a DM account. */
export interface AccountSecrets {
  readonly clientSecret: string;
  readonly serverSecret: string;
}

/** Most records that wait: of one claim, and in all. And most records. */
export const enrolmentLimits = { waitingOfClaim: 1000, waiting: 4000, all: 65_536 } as const;
const secretBytes = 24;
/** Part of the time of a certificate that is left when it is to be renewed. */
const renewalDue = 1 / 3;

/** The requests of boards. Durable and bounded. Secrets are sealed by a key that is not in the same file. */
export class EnrolmentRecords {
  readonly #database: Database;
  readonly #sealing: Sealer;
  readonly #clock: Clock;
  readonly #entropy: Entropy;

  constructor(parts: { database: Database; sealing: Sealer; clock: Clock; entropy: Entropy }) {
    this.#database = parts.database;
    this.#sealing = parts.sealing;
    this.#clock = parts.clock;
    this.#entropy = parts.entropy;
  }

  get(key: string): EnrolmentRecord | undefined {
    return readRows(this.#database, table, 'WHERE key = ?', key)[0];
  }

  /** The record of the board that has this name: approved or issued. */
  holder(gateway: string): EnrolmentRecord | undefined {
    const where = "WHERE gateway = ? AND state IN ('approved', 'issued')";
    return readRows(this.#database, table, where, gateway)[0];
  }

  /** As `holder`. @throws {PosternError} `notFound` when no board is enrolled by this name */
  demandHolder(gateway: string): EnrolmentRecord {
    const holder = this.holder(gateway);
    if (!holder) throw new PosternError('notFound', `no board is enrolled as ${gateway}`);
    return holder;
  }

  /** All boards that have a name. */
  holders(): EnrolmentRecord[] {
    return readRows(this.#database, table, "WHERE state IN ('approved', 'issued')");
  }

  /** Whether a board had this name that has it no more. */
  hadOther(gateway: string): boolean {
    const where = "WHERE gateway = ? AND state IN ('replaced', 'gone') LIMIT 1";
    return readRows(this.#database, table, where, gateway).length > 0;
  }

  /** The latest board that had this name and is gone, if no other board has the name now. */
  gone(gateway: string): EnrolmentRecord | undefined {
    const where =
      "WHERE gateway = ? AND state IN ('approved', 'issued', 'gone') ORDER BY state = 'gone', decided DESC LIMIT 1";
    const [found] = readRows(this.#database, table, where, gateway);
    return found?.state === 'gone' ? found : undefined;
  }

  /** The board that has this name has it no more, and has no account. */
  leave(gateway: string, reason: string): void {
    this.#database
      .prepare(
        "UPDATE enrolment SET state = 'gone', reason = ?, decided = ?, secrets = NULL, renew_at = NULL WHERE gateway = ? AND state IN ('approved', 'issued')",
      )
      .run(reason, this.#now, gateway);
  }

  /** Boards whose certificates have less than a third of their time left. */
  due(): EnrolmentRecord[] {
    const where = "WHERE renew_at < ? AND state = 'issued' ORDER BY renew_at";
    return readRows(this.#database, table, where, this.#now);
  }

  /** Lists records, the latest first: at most `limit`, and only numbers below `before`. */
  latest(limit: number, before = Number.MAX_SAFE_INTEGER): EnrolmentRecord[] {
    return readRows(this.#database, table, 'WHERE number < ? ORDER BY number DESC LIMIT ?', before, limit);
  }

  /**
   * Records that a board asks. A board that asks again keeps its record.
   * @throws {PosternError} `full` when too many wait
   */
  ask(
    request: Pick<EnrolmentRecord, 'key' | 'gateway' | 'serial' | 'claim' | 'publicKey'>,
    reason: string,
  ): void {
    const { key, gateway, serial = null, claim, publicKey } = request;
    const known = this.get(key);
    if (!known) this.#demandRoom(claim);
    this.#database
      .prepare(
        `INSERT INTO enrolment (key, gateway, serial, claim, state, reason, asked, public_key)
         VALUES (?, ?, ?, ?, 'waiting', ?, ?, ?)
         ON CONFLICT (key) DO UPDATE SET gateway = excluded.gateway, serial = excluded.serial, claim = excluded.claim,
           state = 'waiting', reason = excluded.reason`,
      )
      .run(key, gateway, serial, claim, reason, this.#now, publicKey);
  }

  #demandRoom(claim: string): void {
    const count = (where: string, ...values: string[]) =>
      Number(this.#database.prepare(`SELECT count(*) AS n FROM enrolment ${where}`).get(...values)?.n);
    const { waitingOfClaim, waiting, all } = enrolmentLimits;
    if (
      count("WHERE state = 'waiting' AND claim = ?", claim) >= waitingOfClaim ||
      count("WHERE state = 'waiting'") >= waiting
    )
      throw new PosternError('full', 'too many requests wait for a person');
    if (count('') < all) return;
    const { changes } = this.#database
      .prepare(
        "DELETE FROM enrolment WHERE number = (SELECT min(number) FROM enrolment WHERE state IN ('refused', 'replaced', 'gone'))",
      )
      .run();
    if (Number(changes) === 0) throw new PosternError('full', 'too many gateways are enrolled');
  }

  /** Approves a record, with new secrets or those that are given. Another board that has the name loses it. */
  approve({ key, gateway }: EnrolmentRecord, by: string, given?: AccountSecrets): void {
    this.#database
      .prepare(
        "UPDATE enrolment SET state = 'replaced', reason = ?, secrets = NULL WHERE gateway = ? AND key <> ? AND state IN ('approved', 'issued')",
      )
      .run(`the board with the key ${key} has the name now`, gateway, key);
    const secret = () => Buffer.from(this.#entropy.bytes(secretBytes)).toString('base64url');
    const secrets = given ?? { clientSecret: secret(), serverSecret: secret() };
    this.#database
      .prepare(
        "UPDATE enrolment SET state = 'approved', by = ?, reason = NULL, decided = ?, secrets = ?, chain = NULL, renew_at = NULL WHERE key = ?",
      )
      .run(by, this.#now, this.#sealing.seal(Buffer.from(JSON.stringify(secrets)), key), key);
  }

  refuse(key: string, by: string, reason: string): void {
    this.#database
      .prepare("UPDATE enrolment SET state = 'refused', by = ?, reason = ?, decided = ? WHERE key = ?")
      .run(by, reason, this.#now, key);
  }

  /**
   * Stores the certificate of an approved record, or a later one.
   * @throws {PosternError} `forbidden` when the board has lost its name while the certificate was made
   */
  issued(key: string, { chain, expires }: Issued): void {
    const { changes } = this.#database
      .prepare(
        "UPDATE enrolment SET state = 'issued', chain = ?, expires = ?, renew_at = ? WHERE key = ? AND state IN ('approved', 'issued')",
      )
      .run(chain, Math.round(expires), Math.round(expires - (expires - this.#now) * renewalDue), key);
    if (Number(changes) === 0) throw new PosternError('forbidden', 'the board has lost its name meanwhile');
  }

  /**
   * The secrets of the account of a board that has its name.
   * @throws {PosternError} `storage` when the sealing key is another one than before
   */
  secretsOf({ key, secrets, gateway }: EnrolmentRecord): AccountSecrets {
    const opened = secrets && this.#sealing.open(secrets, key);
    if (!opened)
      throw new PosternError('storage', `the account of ${gateway} cannot be opened by the sealing key`);
    return JSON.parse(opened.toString()) as AccountSecrets;
  }

  get #now(): number {
    return Math.round(this.#clock.wall());
  }
}

const table: ReadableTable<EnrolmentRecord> = {
  table: 'enrolment',
  key: ['key'],
  read: (row) => ({
    number: row.integer('number'),
    key: row.text('key'),
    gateway: row.text('gateway'),
    ...row.optionalText('serial'),
    claim: row.text('claim'),
    state: row.oneOf('state', enrolmentStates),
    ...row.optionalText('by'),
    ...row.optionalText('reason'),
    asked: row.time('asked'),
    ...row.optionalInteger('decided'),
    ...row.optionalInteger('expires'),
    publicKey: row.octets('public_key'),
    ...row.optionalText('chain'),
    ...optional(row.optionalOctets('secrets')),
  }),
};

const optional = (secrets: Uint8Array | undefined) => (secrets ? { secrets } : {});
