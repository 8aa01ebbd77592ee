import type { Timer } from '../../base/clock.ts';
import { PosternError } from '../../base/errors.ts';
import type { CampaignTarget } from '../store/campaigns.ts';
import type { Outcome } from './campaign-parts.ts';

/** Unit of work: one device, or all devices behind one child gateway. */
export interface Unit {
  readonly devices: readonly string[];
  readonly child: string | undefined;
  attempts: number;
  /** Ends the attempt under way. */
  control?: AbortController;
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
  /** Units in progress whose device does not answer. They wait for it, and do not count as `active`. */
  readonly away: Set<Unit>;
  deadline: Timer;
  /** Ends the units in progress. */
  readonly control: AbortController;
  /** Aborted at the deadline. */
  readonly until: AbortController;
  /** DM status of units that have no outcome when the campaign is given up; undefined before that. */
  givenUp: number | undefined;
  /** The result is being stored. */
  isEnding: boolean;
  readonly finished: PromiseWithResolvers<void>;
}

/** The units of work on pending devices: one for each that is attached here, and one for each child gateway. */
export function unitsOf(
  targets: readonly CampaignTarget[],
  childOf: (device: string) => string | undefined,
): Unit[] {
  const pending = targets.filter(({ state }) => state === 'pending').map(({ device }) => device);
  return [...Map.groupBy(pending, childOf)].flatMap(([child, devices]): Unit[] =>
    child === undefined
      ? devices.map((device) => ({ devices: [device], child, attempts: 0 }))
      : [{ devices, child, attempts: 0 }],
  );
}

/** The devices that accepted the order, with their outcomes so far. */
export const acceptedOf = (targets: readonly CampaignTarget[]): Map<string, Outcome> =>
  new Map(
    targets.flatMap(({ device, state, outcome }) =>
      state === 'accepted' ? [[device, JSON.parse(outcome ?? '{}') as Outcome] as const] : [],
    ),
  );

/** Cancels all later attempts. Returns their units. */
export function takeLater({ later }: Pick<Running<unknown>, 'later'>): Unit[] {
  const units = [...later.values()].map(({ unit, timer }) => {
    timer.cancel();
    return unit;
  });
  later.clear();
  return units;
}

/** Drops all units but those in progress whose device answers. */
export function dropAll(running: Running<unknown>): void {
  running.waiting.length = 0;
  takeLater(running);
  for (const { control } of running.away)
    control?.abort(new PosternError('timeout', 'the campaign has ended'));
  running.accepted.clear();
}
