import type { Database } from '../base/database.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../base/rows.ts';

/** Epochs of one gateway that are remembered. The oldest is forgotten. */
export const epochLimit = 8;

/**
 * The last sequence number of each gateway's alerts, by epoch. A gateway whose state was lost or went back in time begins a
 * new epoch, and counts anew in it. Earlier epochs are remembered: their alerts may be delivered a second time.
 */
export class AlertSequences {
  readonly #database: Database;
  /** Epochs of each gateway, the oldest first. Only gateways with an account here report with an epoch. */
  readonly #gateways = new Map<string, Map<string, number>>();
  /** New epochs that were told, by gateway. */
  readonly #told = new Map<string, string>();

  constructor(database: Database) {
    this.#database = database;
    keepNumbersLow(database, 'alert_epoch', 'number');
    for (const { gateway, epoch, sequence } of readRows(database, epochTable, 'ORDER BY number'))
      this.#gateways.set(gateway, new Map(this.#gateways.get(gateway)).set(epoch, sequence));
  }

  /** Records a number. False when this number or a higher one of the same epoch is recorded: the alert is a repetition. */
  record(gateway: string, epoch: string, sequence: number): boolean {
    const before = this.#gateways.get(gateway);
    if (sequence <= (before?.get(epoch) ?? Number.NEGATIVE_INFINITY)) return false;
    const epochs = new Map(before).set(epoch, sequence);
    this.#database.onRollback(() => {
      if (before) this.#gateways.set(gateway, before);
      else this.#gateways.delete(gateway);
    });
    this.#database
      .prepare(
        `INSERT INTO alert_epoch (gateway, epoch, sequence) VALUES (?, ?, ?)
         ON CONFLICT (gateway, epoch) DO UPDATE SET sequence = excluded.sequence`,
      )
      .run(gateway, epoch, sequence);
    const [oldest = ''] = epochs.keys();
    if (epochs.size > epochLimit) {
      this.#database.prepare('DELETE FROM alert_epoch WHERE gateway = ? AND epoch = ?').run(gateway, oldest);
      epochs.delete(oldest);
    }
    this.#gateways.set(gateway, epochs);
    return true;
  }

  /** Whether a gateway that had another epoch before now has this one. True once for each epoch. */
  isNews(gateway: string, epoch: string): boolean {
    const epochs = this.#gateways.get(gateway);
    if (!epochs || epochs.has(epoch) || this.#told.get(gateway) === epoch) return false;
    this.#database.onRollback(() => this.#told.delete(gateway));
    this.#told.set(gateway, epoch);
    return true;
  }
}

const epochTable: ReadableTable<{
  readonly gateway: string;
  readonly epoch: string;
  readonly sequence: number;
}> = {
  table: 'alert_epoch',
  key: ['number'],
  read: (row) => ({
    gateway: row.text('gateway'),
    epoch: row.text('epoch'),
    sequence: row.integer('sequence'),
  }),
};
