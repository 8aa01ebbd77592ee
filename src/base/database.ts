import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { Durability } from './durability.ts';
import { PosternError } from './errors.ts';
import type { Opened, StateFile } from './state-file.ts';

/**
 * Primary result codes of SQLite that speak of the disk: busy, no memory, read only, I/O, corrupt, full, cannot open, not a
 * database. Busy: the whole checkpoint that makes up for a failed sync has the file.
 */
const storageCodes: ReadonlySet<number> = new Set([5, 7, 8, 10, 11, 13, 14, 26]);

/** An error of SQLite that is the disk's fault becomes `storage`. Others stay as they are. */
function asStorageError(thrown: unknown): unknown {
  const { errcode, message } = thrown as { errcode?: number; message?: string };
  if (errcode === undefined || !storageCodes.has(errcode & 0xff)) return thrown;
  return new PosternError('storage', `the state cannot be written: ${message}`, { cause: thrown });
}

/** How one level of a transaction is taken back in memory, and what follows it. */
interface Level {
  readonly undo: (() => void)[];
  readonly after: (() => void)[];
}

/** Methods of a statement that the program uses. */
const statementMethods = ['run', 'get', 'all', 'iterate', 'setReadBigInts'] as const;

/**
 * The database of a party: SQLite with one unit of work. What a transaction changes in memory goes back with it. What was
 * committed is durable when `settled` resolves.
 */
export class Database implements AsyncDisposable {
  #sqlite: DatabaseSync;
  #file: StateFile | undefined;
  #durability: Durability | undefined;
  #hasRoom: () => boolean = () => true;
  readonly #statements = new Map<string, StatementSync>();
  readonly #levels: Level[] = [];
  /** Writes that wait for the next sync: at most one of each store. */
  readonly #putOff = new Set<() => void>();
  #stepFailed: ((thrown: unknown) => void) | undefined;
  /** The transaction under way has changed rows. */
  #hasWritten = false;
  /** Syncs that have failed since one succeeded. */
  #failedSyncs = 0;
  #syncingAgain: Promise<void> | undefined;
  #fault: PosternError | undefined;
  readonly #faultListeners: ((fault: PosternError | undefined) => void)[] = [];
  #closing: () => void = () => {};

  /** @param file none for a database in memory */
  constructor(sqlite: DatabaseSync, file?: StateFile) {
    this.#sqlite = sqlite;
    if (file) this.#use(file);
    if (file?.waiting) this.#fault = new PosternError('storage', file.waiting.reason);
  }

  #use(file: StateFile): void {
    this.#file = file;
    this.#hasRoom = file.hasRoom;
    this.#durability = file.durability;
    if (!file.durability) return;
    file.durability.beforeSync = () => this.#writePutOff();
    file.durability.afterSync = () => this.#synced();
    file.durability.syncFailed = () => {
      this.#failedSyncs++;
    };
  }

  /** Whether the disk took no writes when the file was opened, and has taken none since: what is open is a copy in memory. */
  get isReadOnly(): boolean {
    return this.#file?.waiting !== undefined;
  }

  /**
   * Goes over from a copy in memory to the file itself when the disk takes writes again. Nothing was written
   * meanwhile, so both are the same, and what memory mirrors stays right. Why that is not possible is the new `fault`.
   */
  reopen(): void {
    if (this.#levels.length > 0) return;
    try {
      const opened = this.#file?.waiting?.reopen();
      if (opened) this.#goOver(opened);
    } catch (thrown) {
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      if (this.#fault?.message === why) return;
      this.#tell(new PosternError('storage', why, { cause: thrown }));
    }
  }

  /** Whoever has prepared a statement keeps it: the statement does what one of the new connection does. */
  #goOver({ sqlite, state }: Opened): void {
    const prepared = [...this.#statements].map(
      ([sql, statement]) => [statement, this.#watched(sqlite.prepare(sql))] as const,
    );
    for (const [statement, fresh] of prepared)
      for (const method of statementMethods)
        Object.assign(statement, { [method]: (fresh[method] as () => unknown).bind(fresh) });
    this.#sqlite.close();
    if (this.#file?.lock !== state.lock) this.#file?.lock.close();
    this.#sqlite = sqlite;
    this.#use(state);
    if (this.#putOff.size > 0) this.#durability?.putOff();
    if (state.waiting) this.#tell(new PosternError('storage', state.waiting.reason));
    else this.#mended();
  }

  /** Makes this the fault: undefined when all is well again. */
  #tell(fault: PosternError | undefined): void {
    this.#fault = fault;
    for (const listener of this.#faultListeners) listener(fault);
  }

  /** Calls the listener when the file is to be closed. */
  onClose(listener: () => void): void {
    this.#closing = listener;
  }

  /** The file of the database: undefined for one in memory. */
  get file(): Pick<StateFile, 'lock' | 'copies' | 'recovery'> | undefined {
    return this.#file;
  }

  /** Why the last write failed. Undefined when it did not. */
  get fault(): PosternError | undefined {
    return this.#fault;
  }

  /** Calls each listener once when writes begin to fail, and once when they work again. */
  onFault(listener: (fault: PosternError | undefined) => void): void {
    this.#faultListeners.push(listener);
    if (this.#fault) listener(this.#fault);
  }

  /**
   * Prepares a statement, once for each text of SQL. The garbage collector does not see the memory of a statement, and the
   * program has a fixed number of texts.
   */
  prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#watched(this.#sqlite.prepare(sql));
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  /**
   * Runs `work` in a transaction and returns its result. All changes are kept, or none: when `work` or the commit fails,
   * the undo steps that were registered by `onRollback` run, the last first. Transactions nest; an inner one that fails
   * takes back its own part. `work` must not wait for anything.
   * @param undo the first undo step: for memory that has changed already. It also runs when no transaction can begin
   * @throws {PosternError} `storage` when the disk does not take it, and whatever `work` throws
   */
  transaction<T>(work: () => T, undo?: () => void): T {
    const depth = this.#levels.length;
    const level: Level = { undo: undo ? [undo] : [], after: [] };
    let result: T;
    try {
      if (depth === 0) this.#hasWritten = false;
      this.#sqlite.exec(depth === 0 ? 'BEGIN IMMEDIATE' : `SAVEPOINT level${depth}`);
      this.#levels.push(level);
      result = work();
      this.#demandTransaction();
      this.#sqlite.exec(depth === 0 ? 'COMMIT' : `RELEASE level${depth}`);
      this.#levels.pop();
    } catch (thrown) {
      throw this.#takeBack(depth, level, thrown);
    }
    const outer = this.#levels.at(-1);
    if (outer) {
      outer.undo.push(...level.undo);
      outer.after.push(...level.after);
      return result;
    }
    if (this.#hasWritten) this.#written();
    this.#runAll(level.after);
    return result;
  }

  /**
   * Registers how memory that mirrors the database goes back when the transaction under way is not committed. Call it
   * before memory changes. Outside a transaction it does nothing: a single statement either ran or threw.
   */
  onRollback(undo: () => void): void {
    this.#levels.at(-1)?.undo.push(undo);
  }

  /** Runs `follow` when the transaction under way is committed: at once outside of one, and never when it is rolled back. */
  afterCommit(follow: () => void): void {
    const level = this.#levels.at(-1);
    if (level) level.after.push(follow);
    else this.#runAll([follow]);
  }

  /**
   * Calls the listener with what a step throws that follows a commit or takes memory back. It is no error of the
   * transaction, and the other steps run all the same. Without a listener, the first error is thrown after them.
   */
  onStepFailed(listener: (thrown: unknown) => void): void {
    this.#stepFailed = listener;
  }

  /**
   * Runs `write` just before the next sync, in one transaction with all that was put off until then. `settled` waits for it. This
   * is for what memory keeps whether the disk takes it or not. A write that the disk refuses is repeated before the next
   * sync, and at the latest when the file is closed. Without a file it runs at once.
   * @param write the same function each time, which writes all that is due
   */
  putOff(write: () => void): void {
    this.#putOff.add(write);
    if (this.#durability) this.#durability.putOff();
    else this.#writePutOff();
  }

  /** Whether everything committed so far survives a power cut. */
  get isSettled(): boolean {
    return this.#durability?.isSettled ?? true;
  }

  /**
   * Resolves when everything committed so far survives a power cut. Whatever acknowledges or promises something waits for
   * it.
   * @throws {PosternError} `storage`
   */
  async settled(): Promise<void> {
    if (this.isSettled) return;
    try {
      await this.#durability?.settled();
    } catch (thrown) {
      this.#fail(thrown);
      if (this.#failedSyncs === 1) this.#syncAgain();
      throw thrown;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Waits for what is under way, and closes the file: at once when nothing is. */
  async close(): Promise<void> {
    this.#closing();
    this.#file?.copies?.stop();
    const underWay = () => this.#durability?.underWay ?? this.#file?.copies?.underWay;
    for (let wait = underWay(); wait; wait = underWay()) await wait;
    this.#writePutOff();
    this.#durability?.stop();
    this.#sqlite.close();
    this.#file?.lock.close();
  }

  #writePutOff(): void {
    if (this.#putOff.size === 0) return;
    try {
      this.transaction(() => {
        for (const write of this.#putOff) write();
      });
      this.#putOff.clear();
    } catch (thrown) {
      if (!(thrown instanceof PosternError && thrown.code === 'storage')) throw thrown;
    }
  }

  /** A statement whose writes are noticed, and whose errors are told apart. */
  #watched(statement: StatementSync): StatementSync {
    const run = statement.run.bind(statement) as (...values: unknown[]) => ReturnType<StatementSync['run']>;
    statement.run = ((...values: unknown[]) => {
      try {
        if (this.#levels.length > 0) this.#demandTransaction();
        this.#demandWritable();
        const outcome = run(...values);
        if (Number(outcome.changes) > 0) {
          this.#hasWritten = true;
          if (this.#levels.length === 0) this.#written();
        }
        return outcome;
      } catch (thrown) {
        throw this.#fail(asStorageError(thrown));
      }
    }) as StatementSync['run'];
    return statement;
  }

  /** A full or failing disk can end a transaction in its middle. Later statements would each be committed alone. */
  #demandTransaction(): void {
    if (!this.#sqlite.isTransaction)
      throw this.#fault ?? this.#fail(new PosternError('storage', 'the transaction has ended early'));
  }

  /**
   * A disk that takes writes and syncs none would let commits pile up, each of which is refused after it was made. So after a
   * second sync has failed nothing is written until one succeeds; each attempt to write is the cause of another sync.
   */
  #demandWritable(): void {
    if (this.isReadOnly) throw this.#fault ?? new PosternError('storage', 'the disk is read-only');
    if (this.#failedSyncs < 2 || !this.#fault) return;
    this.#syncAgain();
    throw this.#fault;
  }

  /** One sync at a time, in the background. It covers commits that nobody waits for any more. */
  #syncAgain(): void {
    this.#syncingAgain ??= this.settled()
      .catch(() => {})
      .finally(() => {
        this.#syncingAgain = undefined;
      });
  }

  #synced(): void {
    if (this.#failedSyncs === 0) return;
    this.#failedSyncs = 0;
    this.#mended();
  }

  #takeBack(depth: number, level: Level, thrown: unknown): unknown {
    this.#levels.length = Math.min(this.#levels.length, depth);
    this.#runAll(level.undo.toReversed());
    try {
      if (this.#sqlite.isTransaction)
        this.#sqlite.exec(depth === 0 ? 'ROLLBACK' : `ROLLBACK TO level${depth}; RELEASE level${depth}`);
    } catch (another) {
      this.#fail(asStorageError(another));
    }
    // What the work itself threw, such as that a key cannot be written, says nothing of this disk.
    const error = asStorageError(thrown);
    return error === thrown ? thrown : this.#fail(error);
  }

  #runAll(steps: readonly (() => void)[]): void {
    const errors: unknown[] = [];
    for (const step of steps)
      try {
        step();
      } catch (thrown) {
        if (this.#stepFailed) this.#stepFailed(thrown);
        else errors.push(thrown);
      }
    if (errors.length > 0) throw errors[0];
  }

  #written(): void {
    this.#durability?.committed();
    if (this.#failedSyncs === 0) this.#mended();
  }

  #mended(): void {
    // A full disk may still take a small write now and then. That is no reason to say that all is well.
    if (!this.#fault || !this.#hasRoom()) return;
    this.#tell(undefined);
  }

  #fail(thrown: unknown): unknown {
    if (thrown instanceof PosternError && thrown.code === 'storage' && !this.#fault) this.#tell(thrown);
    return thrown;
  }
}

/** Runs `work` in a transaction of the database: `Database.transaction`. */
export const transaction = <T>(database: Database, work: () => T, undo?: () => void): T =>
  database.transaction(work, undo);

/**
 * Runs `work` in a transaction that overwrites with zeros what it deletes or replaces in the file, instead of leaving it in free
 * pages. Flash memory may still hold it.
 * @throws {PosternError} as `Database.transaction`
 */
export function withoutTraces(database: Database, work: () => void): void {
  database.prepare('PRAGMA secure_delete = ON').get();
  try {
    database.transaction(work);
  } finally {
    database.prepare('PRAGMA secure_delete = OFF').get();
  }
}

/**
 * Keeps the newest `limit` rows of a table whose row IDs rise. Returns how many rows were deleted.
 * @param table a constant of the program: it becomes part of the SQL
 */
export function keepLatest(database: Database, table: string, limit: number): number {
  // Row IDs have gaps, so the span is never less than the number of rows. Counting would read the whole table each
  // time.
  const span = database
    .prepare(`SELECT (SELECT max(rowid) FROM ${table}) - (SELECT min(rowid) FROM ${table}) + 1 AS n`)
    .get();
  if (Number(span?.n) <= limit) return 0;
  const { changes } = database
    .prepare(
      `DELETE FROM ${table} WHERE rowid IN (SELECT rowid FROM ${table} ORDER BY rowid DESC LIMIT -1 OFFSET ?)`,
    )
    .run(limit);
  return Number(changes);
}
