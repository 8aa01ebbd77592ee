import type { Clock } from '../base/clock.ts';
import type { Database } from '../base/database.ts';
import type { Events } from '../base/events.ts';
import { ToldCauses } from '../base/told-causes.ts';
import { readTelemetry } from '../mo/telemetry-report.ts';
import type { Alert } from '../wire/syncml/message.ts';
import type { AlertSequences } from './alert-sequences.ts';
import type { DeviceValues } from './device-values.ts';
import type { Parties } from './parties.ts';

export interface TelemetryHandlerParts {
  readonly database: Database;
  readonly parties: Pick<Parties, 'gatewayOf'>;
  readonly sequences: AlertSequences;
  readonly values: DeviceValues;
  readonly clock: Clock;
  readonly events: Events;
}

/** Values of devices of others: each gateway is told of at once, and then every ten minutes at most. */
const reports = { period: 600_000, causes: 256 } as const;

/** Takes the Telemetry Report Alerts of gateways. */
export class TelemetryHandler {
  readonly #parts: TelemetryHandlerParts;
  readonly #foreign: ToldCauses;

  constructor(parts: TelemetryHandlerParts) {
    this.#parts = parts;
    this.#foreign = new ToldCauses(reports, parts.clock);
  }

  /**
   * Stores the values of a report, as part of the transaction under way. A report that is repeated changes nothing. Values of a
   * device that is attached to another gateway are left out. A report that is refused comes again before later ones.
   * @throws {PosternError} `malformed`, `tooLarge`
   */
  handle(gateway: string, alert: Alert): void {
    const { parties, sequences, values, clock } = this.#parts;
    const now = Math.round(clock.wall());
    const { epoch, sequence, dropped, values: reported } = readTelemetry(alert, now);
    // Reports have numbers of their own, beside those of the other alerts. No gateway has a space in its name.
    const key = `${gateway} telemetry`;
    if (sequences.record(key, epoch, sequence) !== 'new') return;
    const own = reported.filter(({ device }) => {
      const holder = parties.gatewayOf(device);
      return holder === undefined || holder === gateway;
    });
    values.add(gateway, own, now);
    const bytes = (alert.items[0]?.data ?? '').length;
    this.#emit('telemetry.received', { gateway, values: own.length, bytes });
    if (dropped > 0) this.#emit('telemetry.lost', { gateway, values: dropped });
    const foreign = reported.length - own.length;
    const refused = foreign > 0 ? this.#foreign.count(gateway) : undefined;
    if (refused !== undefined) this.#emit('telemetry.foreign', { gateway, values: foreign, refused });
  }

  /** Emits an event when what it speaks of is stored. */
  readonly #emit: Events['emit'] = (...event) => {
    this.#parts.database.afterCommit(() => this.#parts.events.emit(...event));
  };
}
