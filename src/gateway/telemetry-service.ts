import type { Clock } from '../base/clock.ts';
import type { Entropy } from '../base/entropy.ts';
import type { Events } from '../base/events.ts';
import { writeAtStart } from '../base/start-writes.ts';
import { StoredBranch } from '../dm/stored-branch.ts';
import type { TreeBranch } from '../dm/tree-branch.ts';
import { gwTelemetry } from '../mo/gw-telemetry.ts';
import { ObservationBranch } from '../mo/observation-branch.ts';
import type { TargetChoice } from '../mo/targets.ts';
import type { Vocabulary } from '../mo/vocabulary.ts';
import type { DeviceListener } from './device-signals.ts';
import { Telemetry, type TelemetryParts } from './modes/telemetry.ts';
import type { DataBudget } from './northbound/data-budget.ts';
import { TelemetryReports } from './northbound/telemetry-reports.ts';
import { nodeLimit } from './objects.ts';
import type { Authorisation } from './rights/authorisation.ts';
import type { GatewayState } from './state.ts';
import { Observations } from './store/observations.ts';
import { TelemetryRows } from './store/telemetry-rows.ts';

export interface TelemetryServiceParts extends Pick<TelemetryParts, 'observer' | 'manage' | 'ownServer'> {
  readonly state: GatewayState;
  readonly vocabulary: Vocabulary;
  readonly authorisation: Pick<Authorisation, 'may'>;
  readonly choice: (server: string) => TargetChoice;
  readonly budget: Pick<DataBudget, 'allows'>;
  /** Most mebibytes of reports that wait. */
  readonly limit: number;
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** What a gateway has for the values of its devices: the object GwTelemetry, what observes, and what reports. */
export class TelemetryService implements DeviceListener {
  readonly branch: TreeBranch;
  readonly reports: TelemetryReports;
  readonly #mode: Telemetry;

  constructor(parts: TelemetryServiceParts) {
    const { state, vocabulary, authorisation, budget, limit, clock, ...rest } = parts;
    this.reports = new TelemetryReports({
      rows: new TelemetryRows(state.database),
      vocabulary,
      limit: limit * 1024 * 1024,
      isAllowed: () => budget.allows('telemetry'),
      clock,
      ...rest,
    });
    this.#mode = new Telemetry({
      database: state.database,
      observations: new Observations(state.database),
      reports: this.reports,
      mayActOn: (server, device) => authorisation.may(server, 'manage-device', device),
      record: (device) => state.inventory.get(device),
      clock,
      ...rest,
    });
    const options = { type: gwTelemetry.id, clock, nodes: nodeLimit };
    const stored = new StoredBranch('GwTelemetry', gwTelemetry.root, state.nodes, options);
    const counts = { Buffered: () => this.reports.buffered, Dropped: () => this.reports.dropped };
    for (const [name, count] of Object.entries(counts)) stored.derive([name], () => String(count()));
    const branch = new ObservationBranch(stored, this.#mode);
    this.branch = branch;
    // A state of an earlier version has no such nodes, and its disk may be full.
    writeAtStart({ database: state.database, clock, events: rest.events }, () => {
      for (const name of Object.keys(counts)) stored.plant([name], { name, format: 'int', value: '0' }, true);
      branch.plant();
    });
  }

  /** For people: observations that run, devices that they have, values that wait and values that were dropped since the start. */
  get summary() {
    const { buffered, dropped } = this.reports;
    return { ...this.#mode.summary, buffered, dropped };
  }

  /** An LwM2M client has told values. */
  valued(...values: Parameters<Telemetry['values']>): void {
    this.#mode.values(...values);
  }

  /** Continues what was under way when the gateway stopped. */
  resume(): void {
    this.#mode.resume();
  }

  /** Ends what servers started that have no account any more. */
  endOf(isGone: (server: string) => boolean): void {
    this.#mode.endOf(isGone);
    this.reports.endOf(isGone);
  }

  /** Asks no device any more. */
  stop(): void {
    this.#mode.stop();
  }

  attached(deviceId: string): void {
    this.#mode.attached(deviceId);
  }

  detached(deviceId: string): void {
    this.#mode.detached(deviceId);
  }
}
