import type { Timer } from '../../base/clock.ts';
import type { Outcome } from './campaign-parts.ts';

/** Unit of work: one device, or all devices behind one child gateway. */
export interface Unit {
  readonly devices: readonly string[];
  readonly child: string | undefined;
  attempts: number;
}

/** A running campaign. */
export interface Running<O> {
  readonly order: O;
  /** Units that were not started yet. */
  readonly waiting: Unit[];
  /** Units to be tried again, by device. */
  readonly later: Map<string, { readonly unit: Unit; readonly timer: Timer }>;
  /** Devices that accepted the order and have not reported yet, with the outcome so far. */
  readonly accepted: Map<string, Outcome>;
  /** Number of units in progress. */
  active: number;
  deadline: Timer;
  /** Ends the units in progress. */
  readonly control: AbortController;
  /** The result is being stored. */
  isEnding: boolean;
  readonly finished: PromiseWithResolvers<void>;
}

/** Cancels all later attempts. Returns their units. */
export function takeLater({ later }: Pick<Running<unknown>, 'later'>): Unit[] {
  const units = [...later.values()].map(({ unit, timer }) => {
    timer.cancel();
    return unit;
  });
  later.clear();
  return units;
}
