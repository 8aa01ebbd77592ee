import { background } from '../../base/background.ts';
import type { Clock, Timer } from '../../base/clock.ts';
import { asPosternError } from '../../base/errors.ts';
import type { Events } from '../../base/events.ts';
import type { OperationOutcome } from '../../dm/server-session.ts';
import { DmStatus, isOk } from '../../dm/status.ts';
import { type ObservationOrder, observationDefaults } from '../../mo/observation-order.ts';
import type { TelemetryValue } from '../../mo/telemetry-report.ts';
import type { ObservationState, ReportedValue } from '../southbound/observer.ts';
import type { Manage } from './waiting-work.ts';

export interface ValuePollerParts {
  readonly manage: Manage;
  /** Whether a device answered when it was asked last. One that did not is asked again when it was heard. */
  readonly isReachable: (device: string) => boolean;
  readonly values: (device: string, order: ObservationOrder, values: readonly ReportedValue[]) => void;
  readonly clock: Clock;
  readonly events: Events;
}

/**
 * Bounds of polling: sessions at a time, of all observations together; milliseconds between the beginnings of two sessions for one
 * observation at least; seconds between two polls of a device at least.
 */
export const pollLimits = { parallel: 16, spacing: 20, period: 10 } as const;

/** What was heard of one device for one observation. */
interface Polled {
  state: ObservationState;
  busy: boolean;
  /** Values that were told last, by path. */
  readonly told: Map<string, TelemetryValue>;
}

/** Milliseconds. */
const periodOf = ({ attributes: { pmax } }: ObservationOrder): number =>
  Math.max(pmax || observationDefaults.poll, pollLimits.period) * 1000;

interface Round {
  readonly order: ObservationOrder;
  readonly devices: Map<string, Polled>;
  /** Devices that have not had their turn in this round. */
  turns: Iterator<string>;
  timer: Timer | undefined;
}

/**
 * Observes OMA DM devices, which tell no values by themselves, by asking for them. The devices of an observation take turns, spread
 * evenly over its period: `pmax`, else five minutes. Where the observation has `gt`, `lt` or `st`, only values that meet them are told.
 */
export class ValuePoller {
  readonly #parts: ValuePollerParts;
  readonly #rounds = new Map<string, Round>();
  readonly #stop = new AbortController();
  #running = 0;

  constructor(parts: ValuePollerParts) {
    this.#parts = parts;
  }

  stop(): void {
    for (const { timer } of this.#rounds.values()) timer?.cancel();
    this.#rounds.clear();
    this.#stop.abort();
  }

  /** Takes a device into an observation, in which it stays until `drop`. */
  add(device: string, order: ObservationOrder): void {
    let round = this.#rounds.get(order.name);
    if (!round) {
      round = { order, devices: new Map(), turns: [].values(), timer: undefined };
      this.#rounds.set(order.name, round);
    }
    if (round.devices.has(device)) return;
    round.devices.set(device, { state: { state: 'waiting' }, busy: false, told: new Map() });
    if (!round.timer) this.#next(round, pollLimits.spacing);
  }

  drop(device: string, name: string): void {
    this.#rounds.get(name)?.devices.delete(device);
  }

  /** Ends an observation. */
  end(name: string): void {
    this.#rounds.get(name)?.timer?.cancel();
    this.#rounds.delete(name);
  }

  stateOf(device: string, name: string): ObservationState | undefined {
    return this.#rounds.get(name)?.devices.get(device)?.state;
  }

  #next(round: Round, delay: number): void {
    round.timer = this.#parts.clock.after(delay, () => this.#turn(round));
  }

  /** Asks the next device, if there is a place for its session. */
  #turn(round: Round): void {
    const { devices, order } = round;
    round.timer = undefined;
    if (devices.size === 0) return;
    if (this.#running < pollLimits.parallel) {
      let { value: device, done } = round.turns.next();
      if (done) {
        round.turns = devices.keys();
        ({ value: device, done } = round.turns.next());
      }
      const polled = devices.get(String(device));
      if (polled && !polled.busy) this.#begin(String(device), polled, order);
    }
    this.#next(round, Math.max(pollLimits.spacing, periodOf(order) / devices.size));
  }

  #begin(device: string, polled: Polled, order: ObservationOrder): void {
    if (!this.#parts.isReachable(device)) {
      polled.state = { state: 'waiting' };
      return;
    }
    this.#running++;
    polled.busy = true;
    let hasPlace = true;
    const leave = () => {
      if (hasPlace) this.#running--;
      hasPlace = false;
    };
    void background(
      this.#parts.events,
      'telemetry',
      () => this.#poll(device, polled, order, leave),
      this.#stop.signal,
    ).then(() => {
      leave();
      polled.busy = false;
    });
  }

  /** @param away called when the device does not answer, and its next session is waited for */
  async #poll(device: string, polled: Polled, order: ObservationOrder, away: () => void): Promise<void> {
    const { manage, values, clock } = this.#parts;
    const { paths, attributes, name } = order;
    let outcomes: readonly OperationOutcome[];
    try {
      outcomes = await manage(
        device,
        paths.map((path) => ({ name: 'Get', uri: `.${path}` })),
        { timeout: periodOf(order), signal: this.#stop.signal, away },
      );
    } catch (thrown) {
      const error = asPosternError(thrown);
      if (error.code === 'internal') throw thrown;
      polled.state = { state: 'waiting' };
      return;
    }
    // The observation may have ended meanwhile.
    if (this.#rounds.get(name)?.devices.get(device) !== polled) return;
    const at = clock.wall();
    const found = outcomes.flatMap(({ results, status }, index): ReportedValue[] => {
      const [result] = results;
      const path = paths[index];
      if (!isOk(status) || !result || result.format === 'node' || path === undefined) return [];
      return [{ path, value: valueIn(result), at }];
    });
    const [first] = outcomes;
    polled.state =
      found.length > 0 || !first
        ? { state: 'observing' }
        : {
            state: 'refused',
            reason: `the device answers ${isOk(first.status) ? DmStatus.OptionalFeatureNotSupported : first.status}`,
          };
    const news = found.filter(({ path, value }) => isNews(polled.told.get(path), value, attributes));
    for (const { path, value } of news) polled.told.set(path, value);
    if (news.length > 0) values(device, order, news);
  }
}

/** The value of a leaf, of the type that its format says. */
export function valueIn({
  format,
  data,
}: {
  readonly format: string;
  readonly data: string | Uint8Array;
}): TelemetryValue {
  if (typeof data !== 'string') return data;
  if (format === 'bool' && /^(true|false)$/.test(data)) return data === 'true';
  const isNumber = (format === 'int' || format === 'float') && /^[+-]?[\d.]+(e[+-]?\d+)?$/i.test(data);
  if (!isNumber || !Number.isFinite(Number(data))) return data;
  const number = Number(data);
  const fits64 = /^[+-]?\d{16,20}$/.test(data) && !Number.isSafeInteger(number);
  if (!fits64) return number;
  const whole = BigInt(data);
  return whole === BigInt.asIntN(64, whole) || whole === BigInt.asUintN(64, whole) ? whole : data;
}

/**
 * Whether a value is to be told (LwM2M core 1.2, section 5.1.2): without `gt`, `lt` and `st` each is; with them, one that has crossed
 * `gt` or `lt` or has changed by `st` since it was told last, and the first one. They are for numbers alone.
 */
export function isNews(
  before: TelemetryValue | undefined,
  now: TelemetryValue,
  { gt, lt, st }: ObservationOrder['attributes'],
): boolean {
  if (before === undefined || (gt === undefined && lt === undefined && st === undefined)) return true;
  if (typeof before === 'object' || typeof now === 'object') return true;
  const [one, other] = [Number(before), Number(now)];
  if (Number.isNaN(one) || Number.isNaN(other)) return before !== now;
  const hasCrossed =
    (gt !== undefined && one > gt !== other > gt) || (lt !== undefined && one < lt !== other < lt);
  return hasCrossed || (st !== undefined && Math.abs(other - one) >= st);
}
