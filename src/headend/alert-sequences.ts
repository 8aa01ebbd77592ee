import { BoundedMap } from '../base/bounded-map.ts';
import type { Database } from '../base/database.ts';
import { keepNumbersLow, type ReadableTable, readRows } from '../base/rows.ts';
import type { AlertRun } from '../mo/alert-number.ts';

/** Epochs of one gateway that are remembered. The oldest is forgotten. */
export const epochLimit = 8;
/** Numbers whose alerts were refused that are remembered. The oldest is forgotten. */
const refusedLimit = 4096;

/**
 * What the number of an alert says: it is new; or a repetition; or this server knows it from another run of the gateway,
 * which the gateway has forgotten. Then its state was taken back, and the alert is none that this server knows.
 */
export type Verdict = 'new' | 'repeated' | 'forgotten';

interface Last {
  readonly sequence: number;
  /** Run of the gateway in which it was given; undefined where alerts do not say it. */
  readonly run?: string;
}

/**
 * The last sequence number of each gateway's alerts, by epoch. A gateway whose state was lost or went back in time begins a
 * new epoch, and counts anew in it. Earlier epochs are remembered: their alerts may be delivered a second time.
 */
export class AlertSequences {
  readonly #database: Database;
  /** Epochs of each gateway, the oldest first. Only gateways with an account here report with an epoch. */
  readonly #gateways = new Map<string, ReadonlyMap<string, Last>>();
  /** Numbers whose alerts were refused. They may come again with the same number: the gateway lost its power. */
  readonly #refused = new BoundedMap<string, true>(refusedLimit);
  /** New epochs that were told, by gateway. */
  readonly #told = new Map<string, string>();

  constructor(database: Database) {
    this.#database = database;
    keepNumbersLow(database, 'alert_epoch', 'number');
    for (const { gateway, epoch, ...last } of readRows(database, epochTable, 'ORDER BY number'))
      this.#gateways.set(gateway, new Map(this.#gateways.get(gateway)).set(epoch, last));
  }

  /**
   * Records a number. It is a repetition when it, or a higher one of the same epoch, is recorded, unless its alert was
   * refused. Numbers from before the run of the gateway may be repetitions also where the gateway was taken back.
   */
  record(gateway: string, epoch: string, sequence: number, run?: AlertRun): Verdict {
    const before = this.#gateways.get(gateway);
    const last = before?.get(epoch);
    const isOfRun = run !== undefined && sequence > run.start;
    if (last && isOfRun && last.run !== run.id && last.sequence > run.start) return 'forgotten';
    // A refusal lets its number be new once, also where the refused alert left no trace in the table.
    const wasRefused = this.#forgetRefusal(gateway, epoch, sequence);
    if (last && sequence <= last.sequence) return wasRefused ? 'new' : 'repeated';
    const epochs = new Map(before).set(epoch, { sequence, ...(isOfRun && { run: run.id }) });
    this.#database.onRollback(() => {
      if (before) this.#gateways.set(gateway, before);
      else this.#gateways.delete(gateway);
    });
    this.#database
      .prepare(
        `INSERT INTO alert_epoch (gateway, epoch, sequence, run) VALUES (?, ?, ?, ?)
         ON CONFLICT (gateway, epoch) DO UPDATE SET sequence = excluded.sequence, run = excluded.run`,
      )
      .run(gateway, epoch, sequence, isOfRun ? run.id : null);
    const [oldest = ''] = epochs.keys();
    if (epochs.size > epochLimit) {
      this.#database.prepare('DELETE FROM alert_epoch WHERE gateway = ? AND epoch = ?').run(gateway, oldest);
      epochs.delete(oldest);
    }
    this.#gateways.set(gateway, epochs);
    return 'new';
  }

  /** The alert of a number was refused, after the number was judged. It may come again with the same number. */
  refused(gateway: string, epoch: string, sequence: number): void {
    this.#refused.set(keyOf(gateway, epoch, sequence), true);
  }

  /** Returns whether the alert of this number was refused. */
  #forgetRefusal(gateway: string, epoch: string, sequence: number): boolean {
    const key = keyOf(gateway, epoch, sequence);
    if (!this.#refused.get(key)) return false;
    this.#refused.delete(key);
    this.#database.onRollback(() => this.#refused.set(key, true));
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

const keyOf = (gateway: string, epoch: string, sequence: number): string => `${sequence} ${epoch} ${gateway}`;

const epochTable: ReadableTable<Last & { readonly gateway: string; readonly epoch: string }> = {
  table: 'alert_epoch',
  key: ['number'],
  read: (row) => ({
    gateway: row.text('gateway'),
    epoch: row.text('epoch'),
    sequence: row.integer('sequence'),
    ...row.optionalText('run'),
  }),
};
