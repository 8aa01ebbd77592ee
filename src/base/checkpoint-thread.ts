import { Worker } from 'node:worker_threads';

export type CheckpointMode = 'PASSIVE' | 'TRUNCATE';

/** What runs in the thread. No connection is open between two checkpoints. */
const program = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { DatabaseSync } = require('node:sqlite');
  parentPort.on('message', ({ number, mode }) => {
    let database;
    try {
      database = new DatabaseSync(workerData.file);
      database.exec('PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA busy_timeout = 1000');
      const { busy } = database.prepare('PRAGMA wal_checkpoint(' + mode + ')').get();
      parentPort.postMessage({ number, busy });
    } catch (error) {
      parentPort.postMessage({ number, failure: String(error.message) });
    } finally {
      database?.close();
    }
  });`;

/**
 * Milliseconds that the thread waits for another checkpoint. Under load the next one comes soon, and to start a thread takes
 * more CPU than a checkpoint.
 */
const idle = 2000;

interface Outcome {
  readonly number: number;
  readonly busy?: number;
  readonly failure?: string;
}

/** Makes checkpoints of a database file in a thread of its own, since they wait for the disk several times. */
export class CheckpointThread {
  readonly #file: string;
  #worker: Worker | undefined;
  #end: NodeJS.Timeout | undefined;
  #number = 0;
  #underWay = 0;

  constructor(file: string) {
    this.#file = file;
  }

  /**
   * Makes a checkpoint. Resolves with whether the whole write-ahead log was moved.
   * @throws {Error} when SQLite or the thread failed
   */
  async checkpoint(mode: CheckpointMode): Promise<boolean> {
    clearTimeout(this.#end);
    const worker = this.#running();
    const number = ++this.#number;
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    const answered = (outcome: Outcome) => {
      if (outcome.number !== number) return;
      if (outcome.failure === undefined) resolve(outcome.busy === 0);
      else reject(new Error(outcome.failure));
    };
    const exited = () => reject(new Error('the checkpoint ended early'));
    worker.on('message', answered).once('error', reject).once('exit', exited);
    this.#underWay++;
    worker.ref();
    worker.postMessage({ number, mode });
    try {
      return await promise;
    } finally {
      worker.off('message', answered).off('error', reject).off('exit', exited);
      if (--this.#underWay === 0) {
        worker.unref();
        this.#end = setTimeout(() => this.stop(), idle).unref();
      }
    }
  }

  /** Ends the thread. Another checkpoint starts a new one. */
  stop(): void {
    clearTimeout(this.#end);
    this.#worker?.terminate().catch(() => {});
    this.#worker = undefined;
  }

  #running(): Worker {
    if (this.#worker) return this.#worker;
    const worker = new Worker(program, { eval: true, workerData: { file: this.#file } });
    const gone = () => {
      if (this.#worker === worker) this.#worker = undefined;
    };
    // Between two checkpoints nobody else listens, and an error without a listener would end the process.
    worker.on('error', gone).on('exit', gone);
    this.#worker = worker;
    return worker;
  }
}
