import type { DatabaseSync } from 'node:sqlite';
import { transaction } from './database.ts';

/** `begun`: its session may have started, so nobody knows what was done if the gateway ends now. */
export type TargetState = 'pending' | 'begun' | 'ended';

export interface FanoutTarget {
  readonly device: string;
  readonly state: TargetState;
  /** JSON, of a device that ended. */
  readonly outcome: string | undefined;
}

export interface FanoutRun {
  readonly name: string;
  readonly state: number;
  readonly correlator: string | undefined;
}

/** Fan-outs that were started, and how each device of them stands. Durable. */
export class Fanouts {
  readonly #database: DatabaseSync;

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  run(name: string): FanoutRun | undefined {
    const row = this.#database.prepare('SELECT * FROM fanout WHERE name = ?').get(name);
    return row && toRun(row);
  }

  runs(): FanoutRun[] {
    return this.#database.prepare('SELECT * FROM fanout').all().map(toRun);
  }

  begin(run: FanoutRun, devices: readonly string[]): void {
    transaction(this.#database, () => {
      this.delete(run.name);
      this.#database
        .prepare('INSERT INTO fanout (name, state, correlator) VALUES (?, ?, ?)')
        .run(run.name, run.state, run.correlator ?? null);
      const insert = this.#database.prepare(
        "INSERT INTO fanout_target (name, device, state) VALUES (?, ?, 'pending')",
      );
      for (const device of devices) insert.run(run.name, device);
    });
  }

  setState(name: string, state: number): void {
    this.#database.prepare('UPDATE fanout SET state = ? WHERE name = ?').run(state, name);
  }

  setTarget(name: string, device: string, state: TargetState, outcome?: string): void {
    this.#database
      .prepare('UPDATE fanout_target SET state = ?, outcome = ? WHERE name = ? AND device = ?')
      .run(state, outcome ?? null, name, device);
  }

  targets(name: string): FanoutTarget[] {
    return this.#database
      .prepare('SELECT device, state, outcome FROM fanout_target WHERE name = ? ORDER BY device')
      .all(name)
      .map(({ device, state, outcome }) => ({
        device: String(device),
        state: state as TargetState,
        outcome: outcome === null ? undefined : String(outcome),
      }));
  }

  delete(name: string): void {
    this.#database.prepare('DELETE FROM fanout WHERE name = ?').run(name);
    this.#database.prepare('DELETE FROM fanout_target WHERE name = ?').run(name);
  }
}

const toRun = ({ name, state, correlator }: Record<string, unknown>): FanoutRun => ({
  name: String(name),
  state: Number(state),
  correlator: correlator === null ? undefined : String(correlator),
});
