import type { StoredBranch } from '../dm/stored-branch.ts';
import { gwTelemetry, liveObservationNodes } from './gw-telemetry.ts';
import { type ObservationOrder, readObservation } from './observation-order.ts';
import { type OrderRunner, StartedBranch } from './started-branch.ts';

/** How an observation stands. */
export interface ObservationCounts {
  /** A value of `CampaignState`. */
  readonly state: number;
  readonly observed: number;
  readonly waiting: number;
  /** Why devices cannot be observed, by DevId. */
  readonly refusals: ReadonlyMap<string, string>;
}

/** Runs the observations. */
export interface ObservationRunner extends OrderRunner<ObservationOrder> {
  counts(name: string): ObservationCounts;
}

/** Reasons that are told, and devices that are named for each of them. */
const told = { reasons: 16, devices: 16 } as const;

/** The observations as a branch. */
export class ObservationBranch extends StartedBranch<ObservationOrder> {
  readonly #runner: ObservationRunner;

  constructor(stored: StoredBranch, runner: ObservationRunner) {
    super(
      { stored, description: gwTelemetry.root, list: 'Observation', live: liveObservationNodes },
      runner,
      (name, server) => readObservation(stored, name, server),
    );
    this.#runner = runner;
  }

  protected override valueOf(name: string, group: string, leaf: string | undefined): string {
    const { state, observed, waiting, refusals } = this.#runner.counts(name);
    if (group === 'State') return String(state);
    if (group === 'Refusals') return refusalsJson(refusals);
    const counts: Readonly<Record<string, number>> = { Observed: observed, Waiting: waiting };
    return String(counts[leaf ?? ''] ?? refusals.size);
  }
}

/** A list of `{ reason, devices, count }`; `devices` are some of them. */
function refusalsJson(refusals: ReadonlyMap<string, string>): string {
  const byReason = Map.groupBy(refusals, ([, reason]) => reason);
  const list = [...byReason].slice(0, told.reasons).map(([reason, of]) => ({
    reason,
    count: of.length,
    devices: of.slice(0, told.devices).map(([device]) => device),
  }));
  return JSON.stringify(list);
}
