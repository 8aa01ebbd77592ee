import { closeSync, fdatasync, fstatSync, openSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CheckpointThread } from './checkpoint-thread.ts';
import { PosternError } from './errors.ts';

const datasync = promisify(fdatasync);

/**
 * Bytes of the write-ahead log: by how much it grows between two checkpoints, and where it has to begin anew. A checkpoint
 * in a thread does not reach what is written meanwhile, so under load alone the log would never begin anew. The writing
 * connection then moves the rest, which takes the time of two syncs.
 */
export const logBytes = { growth: 8 * 1024 * 1024, atMost: 32 * 1024 * 1024 } as const;

/**
 * Makes committed transactions durable without stopping the event loop. A commit only hands its pages to the kernel. One
 * asynchronous fdatasync of the write-ahead log then makes all commits before it durable, and everything that promises
 * something to somebody waits for it. Checkpoints, which wait for the disk too, run in a thread.
 */
export class Durability {
  readonly #file: string;
  readonly #checkpointHere: () => void;
  readonly #isAlone: boolean;
  readonly #thread: CheckpointThread;
  /** Called before each sync, to write what was put off until then. */
  beforeSync: () => void = () => {};
  /** Called when a sync has succeeded. */
  afterSync: () => void = () => {};
  /** Called when a sync has failed. */
  syncFailed: () => void = () => {};
  /** Length of the log when the last checkpoint began. 0 since the log began anew. */
  #checkpointed = 0;
  /** Checkpoints so far, in a thread and by the writing connection. */
  checkpoints = 0;
  #log: number | undefined;
  /** Commits and writes that were put off so far, and how many of them are durable. */
  #committed = 0;
  #durable = 0;
  /** There are commits that no sync has covered. A write that was put off and that the disk refused leaves none. */
  #isUnsynced = false;
  #syncing: Promise<void> | undefined;
  #checkpointing: Promise<void> | undefined;
  /** The kernel may have dropped pages that a failed sync did not write. Only a complete checkpoint makes up for that. */
  #mustCheckpoint = false;

  /**
   * @param file the database file, in WAL mode
   * @param checkpointHere makes a checkpoint by the connection that writes
   * @param isAlone whether no other connection can open the file
   */
  constructor(file: string, checkpointHere: () => void, isAlone: boolean) {
    this.#file = file;
    this.#checkpointHere = checkpointHere;
    this.#isAlone = isAlone;
    this.#thread = new CheckpointThread(file);
  }

  /** Something was committed. */
  committed(): void {
    this.#committed++;
    this.#isUnsynced = true;
  }

  /** Something was put off: `beforeSync` commits it, when the disk takes it. */
  putOff(): void {
    this.#committed++;
  }

  /** Number of transactions so far, and of writes that were put off. */
  get commits(): number {
    return this.#committed;
  }

  get isSettled(): boolean {
    return this.#durable === this.#committed;
  }

  /**
   * Resolves when all commits so far are durable.
   * @throws {PosternError} `storage` when the disk does not take them
   */
  async settled(): Promise<void> {
    const wanted = this.#committed;
    while (this.#durable < wanted) {
      this.#syncing ??= this.#sync().finally(() => {
        this.#syncing = undefined;
      });
      await this.#syncing;
    }
  }

  /** What is under way with the file, which must not be closed before. Never rejects. Undefined when nothing is. */
  get underWay(): Promise<unknown> | undefined {
    const all = [this.#syncing, this.#checkpointing].filter((each) => each !== undefined);
    return all.length === 0 ? undefined : Promise.allSettled(all);
  }

  stop(): void {
    if (this.#log !== undefined) closeSync(this.#log);
    this.#log = undefined;
    this.#thread.stop();
  }

  async #sync(): Promise<void> {
    // What is committed in the same turn of the event loop shares the sync.
    await turn();
    this.beforeSync();
    const covered = this.#committed;
    if (!this.#isUnsynced) {
      this.#durable = covered;
      return;
    }
    this.#isUnsynced = false;
    try {
      if (this.#mustCheckpoint) await this.#checkpoint('TRUNCATE');
      // SQLite keeps no locks on this file, so it does not matter that the descriptor is closed again.
      this.#log ??= openSync(`${this.#file}-wal`, 'r');
      await datasync(this.#log);
    } catch (cause) {
      this.#isUnsynced = true;
      this.#mustCheckpoint = true;
      this.syncFailed();
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new PosternError('storage', `the state cannot be written to disk: ${why}`, { cause });
    }
    this.#mustCheckpoint = false;
    this.#durable = covered;
    this.afterSync();
    const { size } = fstatSync(this.#log);
    // A log that begins anew is cut to its limit.
    if (size < this.#checkpointed) this.#checkpointed = 0;
    if (size - this.#checkpointed > logBytes.growth) this.#startCheckpoint(size);
  }

  /** In the background: a checkpoint that fails is tried again after the next sync. */
  #startCheckpoint(size: number): void {
    if (this.#checkpointing) return;
    const before = this.#checkpointed;
    this.#checkpointed = size;
    this.#checkpointing = this.#checkpoint('PASSIVE')
      .then(() => {
        if (size > logBytes.atMost) this.#checkpointHere();
      })
      .catch(() => {
        this.#checkpointed = before;
      })
      .finally(() => {
        this.#checkpointing = undefined;
      });
  }

  async #checkpoint(mode: 'PASSIVE' | 'TRUNCATE'): Promise<void> {
    this.checkpoints++;
    if (this.#isAlone) {
      this.#checkpointHere();
      return;
    }
    const isWhole = await this.#thread.checkpoint(mode);
    if (!isWhole && mode === 'TRUNCATE') throw new Error('the write-ahead log is in use');
  }
}
