import type { StatementSync } from 'node:sqlite';
import * as v from 'valibot';
import { type Database, transaction } from '../../base/database.ts';
import { type ReadableTable, readRows } from '../../base/rows.ts';
import { CampaignState } from '../../mo/campaign.ts';

/** Kinds of campaigns. Each kind has a store and a runner of its own. */
export type CampaignKind = 'fanout' | 'trigger';

/**
 * State of one device in a campaign.
 * - `pending`: nothing was sent to the device yet.
 * - `begun`: an order that must not run twice was started. If the gateway stops now, the outcome is unknown.
 * - `accepted`: the device accepted the order and reports the result later by an alert.
 * - `ended`: the outcome is final.
 */
const targetStates = ['pending', 'begun', 'accepted', 'ended'] as const;
export type TargetState = (typeof targetStates)[number];

export interface CampaignTarget {
  readonly device: string;
  readonly state: TargetState;
  /** Outcome as JSON. Present in the states `accepted` and `ended`. */
  readonly outcome: string | undefined;
}

/** A campaign that was started. */
export interface CampaignRun {
  readonly name: string;
  /** A value of `CampaignState` (mo/campaign.ts). */
  readonly state: number;
  /** ServerID of the DM server that started it. */
  readonly server: string;
  /** Correlator of the Exec that started it. */
  readonly correlator: string | undefined;
}

/** Numbers of devices in a campaign. */
export interface CampaignCounts {
  readonly total: number;
  /** Devices that ended with a DM status from 200 to 213. */
  readonly done: number;
  /** Devices that ended with any other DM status. */
  readonly failed: number;
}

/** Durable store of the started campaigns of one kind and the state of each of their devices. */
export class Campaigns {
  readonly #database: Database;
  readonly #kind: CampaignKind;
  readonly #setTarget: StatementSync;

  constructor(database: Database, kind: CampaignKind) {
    this.#database = database;
    this.#kind = kind;
    this.#setTarget = database.prepare(
      'UPDATE campaign_target SET state = ?, status = ?, outcome = ? WHERE kind = ? AND name = ? AND device = ?',
    );
  }

  run(name: string): CampaignRun | undefined {
    return readRows(this.#database, campaignTable, 'WHERE kind = ? AND name = ?', this.#kind, name)[0];
  }

  runs(): CampaignRun[] {
    return readRows(this.#database, campaignTable, 'WHERE kind = ?', this.#kind);
  }

  /** Stores a campaign with all its devices in state `pending`. Replaces an earlier campaign of the same name. */
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

  /**
   * Updates the state of one device.
   * @param status DM status; only for state `ended`
   * @param outcome JSON; only for the states `accepted` and `ended`
   */
  setTarget(name: string, device: string, state: TargetState, status?: number, outcome?: string): void {
    this.#setTarget.run(state, status ?? null, outcome ?? null, this.#kind, name, device);
  }

  /** Cancels a campaign. Devices that have not ended get this outcome. */
  cancel(name: string, status: number, outcome: string): void {
    transaction(this.#database, () => {
      this.setState(name, CampaignState.Cancelled);
      this.#database
        .prepare(
          "UPDATE campaign_target SET state = 'ended', status = ?, outcome = ? WHERE kind = ? AND name = ? AND state <> 'ended'",
        )
        .run(status, outcome, this.#kind, name);
    });
  }

  /** Runs `work` in one transaction: either all its changes are stored, or none. */
  inTransaction(work: () => void): void {
    transaction(this.#database, work);
  }

  /** As `Database.afterCommit`. */
  afterCommit(follow: () => void): void {
    this.#database.afterCommit(follow);
  }

  /** All devices of a campaign, sorted by device ID. */
  targets(name: string): CampaignTarget[] {
    const where = 'WHERE kind = ? AND name = ? ORDER BY device';
    return readRows(this.#database, targetTable, where, this.#kind, name);
  }

  target(name: string, device: string): CampaignTarget | undefined {
    const where = 'WHERE kind = ? AND name = ? AND device = ?';
    return readRows(this.#database, targetTable, where, this.#kind, name, device)[0];
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

const campaignTable: ReadableTable<CampaignRun> = {
  table: 'campaign',
  key: ['kind', 'name'],
  read: (row) => ({
    name: row.text('name'),
    state: row.oneOf('state', Object.values(CampaignState)),
    server: row.text('server'),
    correlator: row.optionalText('correlator').correlator,
  }),
};

const outcomeBody = v.object({
  status: v.number(),
  parts: v.array(
    v.object({
      status: v.number(),
      results: v.array(
        v.object({
          uri: v.string(),
          data: v.string(),
          format: v.optional(v.string()),
          type: v.optional(v.string()),
        }),
      ),
    }),
  ),
});

const targetTable: ReadableTable<CampaignTarget> = {
  table: 'campaign_target',
  key: ['kind', 'name', 'device'],
  read: (row) => {
    const device = row.text('device');
    const state = row.oneOf('state', targetStates);
    if (state !== 'accepted' && state !== 'ended') return { device, state, outcome: undefined };
    row.json('outcome', outcomeBody);
    return { device, state, outcome: row.text('outcome') };
  },
  // The device stays in the result of the campaign, with the outcome 500: nobody knows what it did.
  instead: (row, database) => {
    const device = row.text('device');
    const status = 500;
    const outcome = JSON.stringify({ status, parts: [] });
    database
      .prepare(
        "INSERT INTO campaign_target (kind, name, device, state, status, outcome) VALUES (?, ?, ?, 'ended', ?, ?)",
      )
      .run(row.text('kind'), row.text('name'), device, status, outcome);
    return { device, state: 'ended', outcome };
  },
};
