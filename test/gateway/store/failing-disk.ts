import { DatabaseSync, StatementSync } from 'node:sqlite';

/** An error as node:sqlite throws it when the disk is full (SQLITE_FULL). */
const full = () =>
  Object.assign(new Error('database or disk is full'), { code: 'ERR_SQLITE_ERROR', errcode: 13 });

/**
 * A disk that refuses one write, or all from one on. It stands between the program and SQLite, at node:sqlite itself: a refused
 * write did not happen, as with a full disk. Make it before databases are opened: statements keep the methods they have then.
 */
export class FailingDisk implements Disposable {
  readonly #run = StatementSync.prototype.run;
  readonly #exec = DatabaseSync.prototype.exec;
  /** Writes and commits so far. */
  writes = 0;
  #failAt: number | undefined;
  #staysFull = false;
  #endsTransaction = false;

  constructor() {
    const disk = this;
    StatementSync.prototype.run = function run(this: StatementSync, ...values: unknown[]) {
      disk.#write();
      return disk.#run.apply(this, values as Parameters<StatementSync['run']>);
    } as StatementSync['run'];
    DatabaseSync.prototype.exec = function exec(this: DatabaseSync, sql: string) {
      if (/^(COMMIT|BEGIN|SAVEPOINT|RELEASE)/.test(sql)) disk.#write(this);
      disk.#exec.call(this, sql);
    };
  }

  /**
   * Refuses the write that comes after `skipped` others.
   * @param endsTransaction SQLite may roll the transaction back by itself when it finds the disk full
   */
  failAfter(skipped: number, { staysFull = false, endsTransaction = false } = {}): void {
    this.#failAt = this.writes + skipped;
    this.#staysFull = staysFull;
    this.#endsTransaction = endsTransaction;
  }

  /** There is room again. Returns whether a write was refused. */
  mend(): boolean {
    const happened = this.#failAt !== undefined && this.writes > this.#failAt;
    this.#failAt = undefined;
    return happened;
  }

  [Symbol.dispose](): void {
    StatementSync.prototype.run = this.#run;
    DatabaseSync.prototype.exec = this.#exec;
  }

  #write(database?: DatabaseSync): void {
    const at = this.writes++;
    if (this.#failAt === undefined || at < this.#failAt || (at > this.#failAt && !this.#staysFull)) return;
    if (this.#endsTransaction && database?.isTransaction) this.#exec.call(database, 'ROLLBACK');
    throw full();
  }
}
