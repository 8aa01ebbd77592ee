import { type Clock, type Monotonic, plus, type Timer } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Envelope } from '../../wire/tunnel/envelope.ts';
import type { Publication } from '../../wire/tunnel/publication.ts';
import type { UpRequest } from './uplink.ts';

/** A request that waits for its answer. */
export interface PendingRequest {
  /** Correlation in hexadecimal. */
  readonly id: string;
  /** Whose requests give way to those of others at the bound: the address of the device. Undefined for the gateway itself. */
  readonly flow: string | undefined;
  /** Key of the session's route: device ID, ServerID, and the address of the device. */
  readonly session: string;
  readonly request: UpRequest;
  /** What is published. Its topic changes when the worker at the end of the route is gone. */
  publication: Publication;
  readonly settle: (outcome: Envelope | PosternError) => void;
  /** The broker has acknowledged a repetition, so there is no further one. */
  isSure: boolean;
  /** How often it was overdue. */
  overdue: number;
  /** Octets that were sent for it. */
  up: number;
}

interface Entry {
  readonly pending: PendingRequest;
  readonly deadline: Monotonic;
  /** When it is looked at next. */
  next: Monotonic;
}

/** Most requests that wait: of devices, and of the gateway itself. */
const limits = { devices: 1024, own: 16 } as const;

export interface PendingRequestsParts {
  readonly clock: Clock;
  /** Milliseconds within which a request must be answered. */
  readonly timeout: number;
  /** Milliseconds after which a request that is not answered is reported by `overdue`, again and again. */
  readonly repeatAfter: number;
  readonly overdue: (pending: PendingRequest) => void;
  /** Called when the time of a request is over. */
  readonly expired: (pending: PendingRequest) => void;
}

/**
 * Requests that wait for their answers, by correlation. One timer serves all of them, because each has the same time. A
 * timer for each request would cost more than the rest of the bookkeeping.
 */
export class PendingRequests implements Disposable {
  readonly #parts: PendingRequestsParts;
  readonly #entries = new Map<string, Entry>();
  /** Correlations of the requests of each flow, the oldest first. */
  readonly #flows = new Map<string | undefined, Set<string>>();
  /** Fires no later than the first entry is to be looked at. */
  #timer: Timer | undefined;

  constructor(parts: PendingRequestsParts) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(id: string): PendingRequest | undefined {
    return this.#entries.get(id)?.pending;
  }

  /** The requests, the oldest first. */
  all(): PendingRequest[] {
    return [...this.#entries.values()].map(({ pending }) => pending);
  }

  /**
   * Makes room for a request of this flow. At the bound, the address with the most requests loses its latest one, so that one
   * host cannot keep out others. Requests of the gateway itself have places of their own.
   * @throws {PosternError} `full` when it is this flow that has too many
   */
  demandRoom(flow: string | undefined): void {
    const full = new PosternError('full', 'too many packages wait for the DM server');
    const own = this.#flows.get(flow)?.size ?? 0;
    if (flow === undefined) {
      if (own >= limits.own) throw full;
      return;
    }
    const ofGateway = this.#flows.get(undefined)?.size ?? 0;
    if (this.size - ofGateway < limits.devices) return;
    let longest: Set<string> = new Set();
    for (const [each, ids] of this.#flows) if (each !== undefined && ids.size > longest.size) longest = ids;
    const latest = [...longest].at(-1);
    if (own >= longest.size - 1 || latest === undefined) throw full;
    this.get(latest)?.settle(full);
  }

  add(pending: PendingRequest): void {
    const ids = this.#flows.get(pending.flow);
    if (ids) ids.add(pending.id);
    else this.#flows.set(pending.flow, new Set([pending.id]));
    const { clock, timeout, repeatAfter } = this.#parts;
    const now = clock.now();
    const next = plus(now, Math.min(repeatAfter, timeout));
    this.#entries.set(pending.id, { pending, deadline: plus(now, timeout), next });
    this.#timer ??= clock.after(next - now, () => this.#look());
  }

  /** Returns false when the request is not there any more. */
  remove(id: string): boolean {
    const flow = this.get(id)?.flow;
    const ids = this.#flows.get(flow);
    if (ids?.delete(id) && ids.size === 0) this.#flows.delete(flow);
    return this.#entries.delete(id);
  }

  [Symbol.dispose](): void {
    this.#timer?.cancel();
  }

  #look(): void {
    const { clock, repeatAfter, overdue, expired } = this.#parts;
    const now = clock.now();
    this.#timer = undefined;
    try {
      for (const entry of [...this.#entries.values()]) {
        if (entry.next > now) continue;
        // Where looking at an entry fails, it is looked at again later, and the others are not affected.
        entry.next = plus(now, repeatAfter);
        if (entry.deadline <= now) expired(entry.pending);
        else overdue(entry.pending);
        entry.next = Math.min(entry.next, entry.deadline) as Monotonic;
      }
    } finally {
      let first = Number.POSITIVE_INFINITY;
      for (const { next } of this.#entries.values()) first = Math.min(first, next);
      if (this.#entries.size > 0) this.#timer ??= clock.after(first - now, () => this.#look());
    }
  }
}
