import type { Socket } from 'node:net';
import { type Clock, type Monotonic, pause, type Timer } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import {
  emptyPeriod,
  type Octets,
  type TrafficKind,
  type TrafficPeriod,
  type TrafficRecord,
  type TrafficRecords,
  trafficKinds,
} from '../store/traffic.ts';
import { OctetCounter } from './octet-counter.ts';

/** Octets that the uplink may carry, in both directions together. Undefined: no limit. */
export interface BudgetLimits {
  readonly day?: number | undefined;
  readonly month?: number | undefined;
}

export interface DataBudgetParts {
  /** Asked again and again: a DM server may change the limits. */
  readonly limits: () => BudgetLimits;
  readonly records: TrafficRecords;
  readonly clock: Clock;
  readonly events: Events;
}

/** How much a period has carried, for `postern status` and for the DM server. */
export interface TrafficView {
  /** Octets; absent without a limit. */
  readonly limit?: number;
  readonly used: number;
  readonly kinds: Readonly<Record<TrafficKind, Readonly<Octets>>>;
}

export interface BudgetView {
  readonly day: TrafficView;
  readonly month: TrafficView;
  /** Kinds that wait because the budget runs short. */
  readonly short: readonly TrafficKind[];
}

/**
 * The part of a budget up to which each kind is sent. Images stop first, alerts last. The connection itself is never
 * given up: without it no server could raise the budget.
 */
export const shares = { images: 0.7, telemetry: 0.85, orders: 0.95, alerts: 1 } as const;
export type LimitedKind = keyof typeof shares;
const limitedKinds = Object.keys(shares) as LimitedKind[];

/** Milliseconds between samples, and at most between two writes of the counters while they grow slowly. */
const times = { sample: 60_000, write: 3_600_000 } as const;
/** Octets after which the counters are written before their time. A power cut forgets no more than this, or one hour. */
const writeAfter = 256 * 1024;
const dayLength = 86_400_000;
const lengths = { day: dayLength, month: 31 * dayLength } as const;
const starts = {
  day: (wall: number) => Math.floor(wall / dayLength) * dayLength,
  month: (wall: number) => Date.UTC(new Date(wall).getUTCFullYear(), new Date(wall).getUTCMonth()),
} as const;

/** Packages that were under way when the period began make the count of the connection too small. */
const atLeastZero = ({ up, down }: Octets): Octets => ({ up: Math.max(0, up), down: Math.max(0, down) });

const sum = ({ octets }: TrafficPeriod): number =>
  trafficKinds.reduce((total, kind) => total + octets[kind].up + octets[kind].down, 0);

/**
 * What the uplink has carried per day and month (UTC), and what may still be sent. Octets come from the TCP connections.
 * What belongs to no package is of kind `connection`.
 */
export class DataBudget implements AsyncDisposable {
  readonly #parts: DataBudgetParts;
  readonly #counter = new OctetCounter<TrafficKind>((kind, octets) => this.#add(kind, octets));
  readonly #periods: Record<'day' | 'month', TrafficPeriod>;
  readonly #short = new Set<LimitedKind>();
  readonly #listeners = new Set<() => void>();
  #changed: () => void = () => {};
  #measured: Monotonic;
  #written: Monotonic;
  #unwritten = 0;
  #timer: Timer | undefined;

  constructor(parts: DataBudgetParts) {
    const { records, clock } = parts;
    this.#parts = parts;
    const wall = clock.wall();
    const fresh: TrafficRecord = {
      day: emptyPeriod(starts.day(wall)),
      month: emptyPeriod(starts.month(wall)),
    };
    this.#periods = { ...fresh, ...records.get() };
    this.#measured = clock.now();
    this.#written = this.#measured;
  }

  start(): void {
    this.#timer = this.#parts.clock.after(times.sample, () => {
      this.start();
      this.sample();
    });
    this.sample();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#timer?.cancel();
    this.#counter.sample();
    if (this.#unwritten > 0) this.#write();
  }

  /** Counts the octets of a TCP connection from its beginning to its end. */
  follow(socket: Socket, kind: TrafficKind): void {
    this.#counter.follow(socket, kind);
  }

  /**
   * Says what a part of the octets of the uplink's connection was for. This is done for each package, and changes no sum, so
   * it decides nothing.
   */
  book(kind: LimitedKind, { up, down }: Octets): void {
    this.#add(kind, { up, down });
    this.#add('connection', { up: -up, down: -down });
  }

  /** Whether the budget leaves room for this kind. */
  allows(kind: LimitedKind): boolean {
    this.sample();
    return !this.#short.has(kind);
  }

  /** Resolves when the budget leaves room for this kind. Rejects with the signal's reason. */
  async granted(kind: LimitedKind, signal: AbortSignal): Promise<void> {
    while (!this.allows(kind)) await pause(this.#parts.clock, times.sample, signal);
  }

  /** @throws {PosternError} `overBudget` */
  demand(kind: LimitedKind): void {
    if (!this.allows(kind))
      throw new PosternError('overBudget', `the data budget of the uplink leaves no room for ${kind}`);
  }

  /** What waits, in words; undefined when nothing does. */
  get shortage(): string | undefined {
    return this.#short.size === 0
      ? undefined
      : `the data budget of the uplink leaves no room for ${[...this.#short].join(', ')}`;
  }

  /** Calls the listener when `shortage` has changed. */
  onChanged(listener: () => void): void {
    this.#changed = listener;
  }

  /** Calls the listener when a kind may be sent again. */
  onReleased(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Counts what was carried, begins a new day or month, and writes the counters when they are due. */
  sample(): void {
    this.#counter.sample();
    this.#turn();
    this.#judge();
    const { clock } = this.#parts;
    if (this.#unwritten >= writeAfter || (this.#unwritten > 0 && clock.now() - this.#written >= times.write))
      this.#write();
  }

  view(): BudgetView {
    this.sample();
    const limits = this.#parts.limits();
    const viewOf = (name: 'day' | 'month'): TrafficView => {
      const limit = limits[name];
      const { octets } = this.#periods[name];
      return {
        ...(limit !== undefined && { limit }),
        used: sum(this.#periods[name]),
        kinds: { ...structuredClone(octets), connection: atLeastZero(octets.connection) },
      };
    };
    return { day: viewOf('day'), month: viewOf('month'), short: [...this.#short] };
  }

  #add(kind: TrafficKind, { up, down }: Octets): void {
    for (const { octets } of Object.values(this.#periods)) {
      octets[kind].up += up;
      octets[kind].down += down;
    }
    this.#unwritten += up + down;
  }

  /**
   * Begins a new day or month when the machine's clock has reached it. A clock that goes back does not begin one, or each
   * start of a board without a battery would bring a new budget. Such a period ends when the gateway has run for its length.
   */
  #turn(): void {
    const { clock } = this.#parts;
    const now = clock.now();
    for (const name of ['day', 'month'] as const) {
      const period = this.#periods[name];
      period.elapsed += now - this.#measured;
      const start = starts[name](clock.wall());
      if (start > period.start || (start < period.start && period.elapsed >= lengths[name]))
        this.#periods[name] = emptyPeriod(start);
    }
    this.#measured = now;
  }

  /** Decides which kinds wait. Each kind is told once when it begins to wait, and once when it may be sent again. */
  #judge(): void {
    const limits = this.#parts.limits();
    if (limits.day === undefined && limits.month === undefined && this.#short.size === 0) return;
    const used = { day: sum(this.#periods.day), month: sum(this.#periods.month) };
    let isReleased = false;
    const before = this.shortage;
    for (const kind of limitedKinds) {
      const period = (['day', 'month'] as const).find(
        (name) => used[name] >= (limits[name] ?? Number.POSITIVE_INFINITY) * shares[kind],
      );
      if (period !== undefined && !this.#short.has(kind)) {
        this.#short.add(kind);
        const limit = limits[period] ?? 0;
        this.#parts.events.emit('budget.short', { traffic: kind, period, used: used[period], limit });
      } else if (period === undefined && this.#short.delete(kind)) {
        isReleased = true;
        this.#parts.events.emit('budget.restored', { traffic: kind });
      }
    }
    if (this.shortage !== before) this.#changed();
    if (isReleased) for (const listener of this.#listeners) listener();
  }

  /** A disk that takes no writes does not stop the uplink. The counters stay in memory, and the write is tried again. */
  #write(): void {
    this.#written = this.#parts.clock.now();
    try {
      this.#parts.records.put(this.#periods);
      this.#unwritten = 0;
    } catch {
      this.#unwritten = 1;
    }
  }
}
