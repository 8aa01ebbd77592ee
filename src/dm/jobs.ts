import { asPosternError, PosternError } from '../base/errors.ts';
import { type Operation, type OperationOutcome, operationsPerPackage, type Work } from './server-session.ts';

/** Something to do in the next session of a party. */
interface Job {
  /** Runs in the session; may yield any number of times. */
  readonly work: () => AsyncGenerator<readonly Operation[], void, readonly OperationOutcome[]>;
  readonly settled: (failure: PosternError | undefined) => void;
}

/** Jobs that wait for one party. */
const jobsPerParty = 64;

/** What is to be done with each party, in order, whenever it opens a session. */
export class Jobs {
  readonly #waiting = new Map<string, Job[]>();

  count(party: string): number {
    return this.#waiting.get(party)?.length ?? 0;
  }

  /**
   * Does operations in the party's next session and resolves with what they came to.
   * @throws {PosternError} `full`, or why the session failed; the signal's reason when it is given up first
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
        for (let at = 0; at < operations.length; at += operationsPerPackage)
          outcomes.push(...(yield operations.slice(at, at + operationsPerPackage)));
      },
      signal,
    );
    return outcomes;
  }

  /** The same with work of several rounds. */
  async perform(party: string, work: Job['work'], signal?: AbortSignal): Promise<void> {
    const queue = this.#waiting.get(party) ?? [];
    if (queue.length >= jobsPerParty) throw new PosternError('full', `too many jobs wait for ${party}`);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const job: Job = { work, settled: (failure) => (failure ? reject(failure) : resolve()) };
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

  /** All that waits, as the work of one session. A job that fails leaves the others to go on. */
  async *work(party: string): Work {
    for (let job = this.#take(party); job; job = this.#take(party)) {
      let failure: PosternError | undefined = new PosternError(
        'unavailable',
        `the session with ${party} broke`,
      );
      try {
        yield* job.work();
        failure = undefined;
      } catch (thrown) {
        failure = asPosternError(thrown);
      } finally {
        job.settled(failure);
      }
    }
  }

  /** The party will open no session any more: what waits for it fails. */
  reject(party: string, reason: PosternError): void {
    const queue = this.#waiting.get(party) ?? [];
    this.#waiting.delete(party);
    for (const { settled } of queue) settled(reason);
  }

  #take(party: string): Job | undefined {
    const queue = this.#waiting.get(party);
    const job = queue?.shift();
    if (queue?.length === 0) this.#waiting.delete(party);
    return job;
  }

  #drop(party: string, job: Job): void {
    const left = (this.#waiting.get(party) ?? []).filter((other) => other !== job);
    if (left.length > 0) this.#waiting.set(party, left);
    else this.#waiting.delete(party);
  }
}
