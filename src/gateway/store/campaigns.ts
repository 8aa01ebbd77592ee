import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { transaction } from '../../base/database.ts';

/**
 * How a device of a campaign stands. `begun`: something may have been done, so nobody knows what if the gateway ends now.
 * `accepted`: the device took it, and will say by alert what it came to.
 */
export type TargetState = 'pending' | 'begun' | 'accepted' | 'ended';

export interface CampaignTarget {
  readonly device: string;
  readonly state: TargetState;
  /** JSON, of a device that ended or accepted. */
  readonly outcome: string | undefined;
}

export interface CampaignRun {
  readonly name: string;
  readonly state: number;
  /** ServerID of the DM server that started it. */
  readonly server: string;
  readonly correlator: string | undefined;
}

/** How many devices a campaign has, and how many of them ended by a status that says it is done (200 to 213), or by another. */
export interface CampaignCounts {
  readonly total: number;
  readonly done: number;
  readonly failed: number;
}

/** Campaigns of one kind that were started, and how each device of them stands. Durable. */
export class Campaigns {
  readonly #database: DatabaseSync;
  readonly #kind: string;
  readonly #setTarget: StatementSync;

  constructor(database: DatabaseSync, kind: string) {
    this.#database = database;
    this.#kind = kind;
    this.#setTarget = database.prepare(
      'UPDATE campaign_target SET state = ?, status = ?, outcome = ? WHERE kind = ? AND name = ? AND device = ?',
    );
  }

  run(name: string): CampaignRun | undefined {
    const row = this.#database
      .prepare('SELECT * FROM campaign WHERE kind = ? AND name = ?')
      .get(this.#kind, name);
    return row && toRun(row);
  }

  runs(): CampaignRun[] {
    return this.#database.prepare('SELECT * FROM campaign WHERE kind = ?').all(this.#kind).map(toRun);
  }

  begin({ name, state, server, correlator }: CampaignRun, devices: readonly string[]): void {
    transaction(this.#database, () => {
      this.delete(name);
      this.#database
        .prepare('INSERT INTO campaign (kind, name, state, server, correlator) VALUES (?, ?, ?, ?, ?)')
        .run(this.#kind, name, state, server, correlator ?? null);
      const insert = this.#database.prepare(
        "INSERT INTO campaign_target (kind, name, device, state) VALUES (?, ?, ?, 'pending')",
      );
      for (const device of devices) insert.run(this.#kind, name, device);
    });
  }

  setState(name: string, state: number): void {
    this.#database
      .prepare('UPDATE campaign SET state = ? WHERE kind = ? AND name = ?')
      .run(state, this.#kind, name);
  }

  /** `status` is that of a device that ended. */
  setTarget(name: string, device: string, state: TargetState, status?: number, outcome?: string): void {
    this.#setTarget.run(state, status ?? null, outcome ?? null, this.#kind, name, device);
  }

  /** Writes all changes of `work`, or none when it throws. */
  inTransaction(work: () => void): void {
    transaction(this.#database, work);
  }

  targets(name: string): CampaignTarget[] {
    return this.#database
      .prepare(
        'SELECT device, state, outcome FROM campaign_target WHERE kind = ? AND name = ? ORDER BY device',
      )
      .all(this.#kind, name)
      .map(toTarget);
  }

  target(name: string, device: string): CampaignTarget | undefined {
    const row = this.#database
      .prepare(
        'SELECT device, state, outcome FROM campaign_target WHERE kind = ? AND name = ? AND device = ?',
      )
      .get(this.#kind, name, device);
    return row && toTarget(row);
  }

  counts(name: string): CampaignCounts {
    const row = this.#database
      .prepare(
        `SELECT count(*) AS total, count(*) FILTER (WHERE status BETWEEN 200 AND 213) AS done,
           count(*) FILTER (WHERE status NOT BETWEEN 200 AND 213) AS failed
         FROM campaign_target WHERE kind = ? AND name = ?`,
      )
      .get(this.#kind, name);
    return { total: Number(row?.total), done: Number(row?.done), failed: Number(row?.failed) };
  }

  delete(name: string): void {
    for (const table of ['campaign', 'campaign_target'])
      this.#database.prepare(`DELETE FROM ${table} WHERE kind = ? AND name = ?`).run(this.#kind, name);
  }
}

const toTarget = ({ device, state, outcome }: Record<string, unknown>): CampaignTarget => ({
  device: String(device),
  state: state as TargetState,
  outcome: outcome === null ? undefined : String(outcome),
});

const toRun = ({ name, state, server, correlator }: Record<string, unknown>): CampaignRun => ({
  name: String(name),
  state: Number(state),
  server: String(server),
  correlator: correlator === null ? undefined : String(correlator),
});
