import { PosternError } from './errors.ts';

/** Bounds of a `FairWindow`. */
export interface FairWindowBounds {
  /** Tasks that run at a time. */
  readonly width: number;
  /** Tasks that wait. */
  readonly waiting: number;
  /** Sum of the sizes of the tasks that wait, in bytes. */
  readonly bytes: number;
}

interface Waiting {
  readonly bytes: number;
  readonly start: () => void;
  readonly refuse: (reason: PosternError) => void;
}

/**
 * Runs a bounded number of tasks at a time. Other tasks wait in a bounded queue. Flows take turns in the queue, so a flow
 * with many tasks does not delay the first task of another flow. At the bound of the queue, the flow with the most waiting
 * tasks loses its latest one.
 */
export class FairWindow {
  readonly #bounds: FairWindowBounds;
  #width: number;
  #running = 0;
  #waiting = 0;
  #bytes = 0;
  /** The first flow is the next in turn. No flow is empty. */
  readonly #flows = new Map<string, Waiting[]>();

  constructor(bounds: FairWindowBounds) {
    this.#bounds = bounds;
    this.#width = bounds.width;
  }

  /** Number of tasks that run. */
  get running(): number {
    return this.#running;
  }

  /** Number of tasks that wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Whether a task would run at once. */
  get isOpen(): boolean {
    return this.#running < this.#width && this.#waiting === 0;
  }

  /** Changes how many tasks may run at a time: from 0, which lets all tasks wait, to the bound. */
  resize(width: number): void {
    this.#width = Math.min(width, this.#bounds.width);
    this.#startWaiting();
  }

  /**
   * Runs a task as soon as the window has room and the flow is in turn. Returns the result of the task.
   * @param bytes size of the task while it waits
   * @throws {PosternError} `full` when too many tasks wait; what was given to `refuseWaiting`; what the task throws
   */
  async run<T>(flow: string, bytes: number, task: () => Promise<T>): Promise<T> {
    if (this.isOpen) this.#running++;
    else await this.#turn(flow, bytes);
    try {
      return await task();
    } finally {
      this.#running--;
      this.#startWaiting();
    }
  }

  /** Refuses all tasks that wait. Running tasks continue. */
  refuseWaiting(reason: PosternError): void {
    const all = [...this.#flows.values()].flat();
    this.#flows.clear();
    this.#waiting = 0;
    this.#bytes = 0;
    for (const { refuse } of all) refuse(reason);
  }

  /** Resolves when the task counts as running. */
  #turn(flow: string, bytes: number): Promise<void> {
    const { waiting, bytes: most } = this.#bounds;
    const full = new PosternError(
      'full',
      `too many messages wait; the bound is ${waiting}, or ${most} bytes`,
    );
    while (this.#waiting >= this.#bounds.waiting || this.#bytes + bytes > this.#bounds.bytes) {
      const longest = this.#longest();
      const own = this.#flows.get(flow)?.length ?? 0;
      if (longest === undefined || own >= (this.#flows.get(longest)?.length ?? 0) - 1)
        return Promise.reject(full);
      this.#takeFrom(longest, 'last')?.refuse(full);
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const entry = { bytes, start: resolve, refuse: reject };
    const queue = this.#flows.get(flow);
    if (queue) queue.push(entry);
    else this.#flows.set(flow, [entry]);
    this.#waiting++;
    this.#bytes += bytes;
    return promise;
  }

  #startWaiting(): void {
    while (this.#waiting > 0 && this.#running < this.#width) {
      const [flow = ''] = this.#flows.keys();
      const next = this.#takeFrom(flow, 'first');
      // To the end of the turn.
      const rest = this.#flows.get(flow);
      if (rest) {
        this.#flows.delete(flow);
        this.#flows.set(flow, rest);
      }
      this.#running++;
      next?.start();
    }
  }

  #takeFrom(flow: string, end: 'first' | 'last'): Waiting | undefined {
    const queue = this.#flows.get(flow);
    const entry = end === 'first' ? queue?.shift() : queue?.pop();
    if (!queue || !entry) return undefined;
    if (queue.length === 0) this.#flows.delete(flow);
    this.#waiting--;
    this.#bytes -= entry.bytes;
    return entry;
  }

  #longest(): string | undefined {
    let longest: string | undefined;
    let length = 0;
    for (const [flow, queue] of this.#flows)
      if (queue.length > length) [longest, length] = [flow, queue.length];
    return longest;
  }
}
