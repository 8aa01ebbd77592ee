import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import { PosternError } from '../base/errors.ts';
import { type ReadableTable, readRows } from '../base/rows.ts';
import type { EnrolmentRecords } from './enrolment-records.ts';

/** The order that the next board which asks by the name of a gateway replaces the board that has the name. */
export interface Replacement {
  readonly gateway: string;
  /** Serial number that the new board must have. */
  readonly serial?: string;
  /** Milliseconds since 1970. */
  readonly expires: number;
}

const hour = 3_600_000;

/** Orders to replace boards. Durable; one for each gateway that is enrolled. The first board that fits ends its order. */
export class Replacements {
  readonly #database: Database;
  readonly #records: Pick<EnrolmentRecords, 'demandHolder'>;
  readonly #clock: Clock;

  constructor(parts: {
    readonly database: Database;
    readonly records: Pick<EnrolmentRecords, 'demandHolder'>;
    readonly clock: Clock;
  }) {
    this.#database = parts.database;
    this.#records = parts.records;
    this.#clock = parts.clock;
  }

  /**
   * Orders that a gateway is replaced. It takes the place of an earlier order for this gateway.
   * @throws {PosternError} `notFound` when no board is enrolled by this name
   */
  order(gateway: string, hours: number, serial?: string): Replacement {
    this.#records.demandHolder(gateway);
    const expires = Math.round(this.#clock.wall() + hours * hour);
    this.#database
      .prepare('INSERT OR REPLACE INTO replacement (gateway, serial, expires) VALUES (?, ?, ?)')
      .run(gateway, serial ?? null, expires);
    return { gateway, expires, ...(serial !== undefined && { serial }) };
  }

  /** Takes an order back. @throws {PosternError} `notFound` */
  cancel(gateway: string): void {
    if (!this.#delete(gateway)) throw new PosternError('notFound', `${gateway} is not to be replaced`);
  }

  /** Whether a board replaces the one that has the name. That ends the order. Call it in the transaction that approves the board. */
  use(gateway: string, serial: string | undefined): boolean {
    const [found] = readRows(this.#database, table, 'WHERE gateway = ?', gateway);
    if (!found || found.expires < this.#clock.wall()) return false;
    return (found.serial === undefined || found.serial === serial) && this.#delete(gateway);
  }

  /** Ends the order for a gateway whose board was replaced in another way. */
  done(gateway: string): void {
    this.#delete(gateway);
  }

  #delete(gateway: string): boolean {
    return (
      Number(this.#database.prepare('DELETE FROM replacement WHERE gateway = ?').run(gateway).changes) > 0
    );
  }
}

const table: ReadableTable<Replacement> = {
  table: 'replacement',
  key: ['gateway'],
  read: (row) => ({
    gateway: row.text('gateway'),
    ...row.optionalText('serial'),
    expires: row.integer('expires'),
  }),
};
