import type { Database } from './database.ts';

/** Part of the rows that stays when a table is full. The rest goes at once, because to compare all rows takes 20 ms. */
const kept = 31 / 32;

/**
 * Keeps the rows of a table below a bound, and shares the room among their owners. When the table is full, rows of the owner with the
 * most rows go first, the oldest of them first. So an owner displaces rows of others only while it has fewer than they have.
 *
 * An owner is a text such as `gateway` or `gateway/child`. The parts of one gateway share what the gateway has in the same way.
 */
export class FairRows {
  readonly #database: Database;
  readonly #table: string;
  readonly #limit: number;
  readonly #owners: string;
  /** At least the number of rows. */
  #count: number;

  /**
   * @param table a constant of the program, as `owners` is; its rows have rising numbers in the column `number`
   * @param owners SELECT of the `number` and `owner` of all rows
   */
  constructor(database: Database, table: string, limit: number, owners: string) {
    this.#database = database;
    this.#table = table;
    this.#limit = limit;
    this.#owners = owners;
    this.#count = limit;
  }

  /** To be called after a row was added. Joins the caller's transaction. @throws {PosternError} `storage` */
  added(): void {
    if (++this.#count <= this.#limit) return;
    this.#database.onRollback(() => {
      this.#count = this.#limit;
    });
    this.#count = Number(this.#database.prepare(`SELECT count(*) AS n FROM ${this.#table}`).get()?.n);
    if (this.#count <= this.#limit) return;
    const rest = Math.floor(this.#limit * kept);
    this.#database
      .prepare(
        `WITH owned AS (${this.#owners}), of_owner AS (
           SELECT number, substr(owner, 1, instr(owner || '/', '/') - 1) AS party,
             row_number() OVER (PARTITION BY owner ORDER BY number DESC) AS place FROM owned
         ), of_party AS (
           SELECT number, row_number() OVER (PARTITION BY party ORDER BY place, number DESC) AS place FROM of_owner
         )
         DELETE FROM ${this.#table} WHERE number IN (SELECT number FROM of_party ORDER BY place DESC, number LIMIT ?)`,
      )
      .run(this.#count - rest);
    this.#count = rest;
  }
}
