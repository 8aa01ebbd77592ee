import type { Database } from '../../base/database.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import { CampaignState } from '../../mo/campaign.ts';
import { type ObservationOrder, orderJson, storedOrder } from '../../mo/observation-order.ts';

/** An observation that was started. */
export interface StoredObservation {
  readonly order: ObservationOrder;
  /** A value of `CampaignState`. */
  readonly state: number;
  /** Seconds of its lifetime that are left. 0 where it has no end. */
  readonly rest: number;
}

/** Durable store of the observations that were started. They are kept as they were ordered: nodes that change later change nothing. */
export class Observations {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  all(): StoredObservation[] {
    return readRows(this.#database, observationTable);
  }

  /** Stores an observation that begins. Replaces an earlier one of the same name. Joins the caller's transaction. */
  begin(order: ObservationOrder): void {
    this.#database
      .prepare('INSERT OR REPLACE INTO observation (name, state, rest, body) VALUES (?, ?, ?, ?)')
      .run(order.name, CampaignState.Running, order.lifetime, orderJson(order));
  }

  setState(name: string, state: number): void {
    this.#database.prepare('UPDATE observation SET state = ? WHERE name = ?').run(state, name);
  }

  setRest(name: string, rest: number): void {
    this.#database.prepare('UPDATE observation SET rest = ? WHERE name = ?').run(rest, name);
  }

  delete(name: string): void {
    this.#database.prepare('DELETE FROM observation WHERE name = ?').run(name);
  }
}

const observationTable: ReadableTable<StoredObservation> = {
  table: 'observation',
  key: ['name'],
  read: (row) => ({
    order: row.json('body', storedOrder),
    state: row.oneOf('state', Object.values(CampaignState)),
    rest: row.integer('rest'),
  }),
};
