import { asPosternError, PosternError } from '../base/errors.ts';
import { type Operation, type OperationOutcome, operationsPerPackage, type Work } from './server-session.ts';

/** Work for the next session with a party. */
interface Job {
  /** Runs in the session. It may yield any number of rounds of operations. */
  readonly work: () => AsyncGenerator<readonly Operation[], void, readonly OperationOutcome[]>;
  /** Whether it waits until the party has answered in the session. See `Jobs.early`. */
  readonly isLate: boolean;
  /** Called when the job has ended, with the reason when it failed. */
  readonly settled: (failure: PosternError | undefined) => void;
}

/** Largest number of waiting jobs for one party. */
const jobsPerParty = 64;

/** Part of a session's work: does any number of operations, a package at a time, and returns their outcomes. */
export async function* inPackages(
  operations: readonly Operation[],
): AsyncGenerator<readonly Operation[], readonly OperationOutcome[], readonly OperationOutcome[]> {
  const outcomes: OperationOutcome[] = [];
  for (let at = 0; at < operations.length; at += operationsPerPackage)
    outcomes.push(...(yield operations.slice(at, at + operationsPerPackage)));
  return outcomes;
}

/** Queues of jobs, one for each party. When a party opens a session, its jobs run in order. */
export class Jobs {
  readonly #waiting = new Map<string, Job[]>();

  /** Number of jobs that wait for the party. */
  count(party: string): number {
    return this.#waiting.get(party)?.length ?? 0;
  }

  /**
   * Queues operations for the party's next session. Resolves with their outcomes, in the same order.
   * @throws {PosternError} `full` when too many jobs wait, or the error that ended the session
   * @throws the signal's reason when the signal is aborted while the job waits
   */
  async run(
    party: string,
    operations: readonly Operation[],
    signal?: AbortSignal,
  ): Promise<readonly OperationOutcome[]> {
    const outcomes: OperationOutcome[] = [];
    await this.perform(
      party,
      async function* () {
        outcomes.push(...(yield* inPackages(operations)));
      },
      signal,
    );
    return outcomes;
  }

  /**
   * Queues work of several rounds. Resolves when it has ended, and fails as `run` does.
   * @param isLate whether it waits until the party has answered in the session (`early`)
   */
  async perform(party: string, work: Job['work'], signal?: AbortSignal, isLate = false): Promise<void> {
    const queue = this.#waiting.get(party) ?? [];
    if (queue.length >= jobsPerParty) throw new PosternError('full', `too many jobs wait for ${party}`);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const job: Job = { work, isLate, settled: (failure) => (failure ? reject(failure) : resolve()) };
    queue.push(job);
    this.#waiting.set(party, queue);
    const giveUp = () => {
      this.#drop(party, job);
      reject(signal?.reason);
    };
    signal?.addEventListener('abort', giveUp, { once: true });
    if (signal?.aborted) giveUp();
    try {
      await promise;
    } finally {
      signal?.removeEventListener('abort', giveUp);
    }
  }

  /** The waiting jobs of a party as the work of one session. After a failed job the next one runs. */
  work(party: string): Work {
    return this.#work(party, () => true);
  }

  /** The same up to the first job that waits until the party has answered. */
  early(party: string): Work {
    return this.#work(party, ({ isLate }) => !isLate);
  }

  async *#work(party: string, isWanted: (job: Job) => boolean): Work {
    for (let job = this.#take(party, isWanted); job; job = this.#take(party, isWanted)) {
      let isDone = false;
      let failure: PosternError | undefined;
      try {
        yield* job.work();
        isDone = true;
      } catch (thrown) {
        failure = asPosternError(thrown);
      } finally {
        const broke = () => new PosternError('unavailable', `the session with ${party} broke`);
        job.settled(isDone ? undefined : (failure ?? broke()));
      }
    }
  }

  /** Fails the waiting jobs of a party that will open no further session. */
  reject(party: string, reason: PosternError): void {
    const queue = this.#waiting.get(party) ?? [];
    this.#waiting.delete(party);
    for (const { settled } of queue) settled(reason);
  }

  #take(party: string, isWanted: (job: Job) => boolean): Job | undefined {
    const queue = this.#waiting.get(party);
    const job = queue?.[0];
    if (!queue || !job || !isWanted(job)) return undefined;
    queue.shift();
    if (queue.length === 0) this.#waiting.delete(party);
    return job;
  }

  #drop(party: string, job: Job): void {
    const left = (this.#waiting.get(party) ?? []).filter((other) => other !== job);
    if (left.length > 0) this.#waiting.set(party, left);
    else this.#waiting.delete(party);
  }
}
